#include "tracer.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "refusal.h"
#include "sock/error.h"

namespace testbed {
namespace {

using nlohmann::json;

constexpr int kCallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
constexpr std::size_t kMany = 1024;        // events that are worth a wake-up

// ptrace(2) wants an integer in the place of a pointer for some requests.
void* as_pointer(std::uint64_t value) {
  return reinterpret_cast<void*>(value);  // NOLINT(performance-no-int-to-ptr)
}

// A request on a tracee that was killed meanwhile fails with ESRCH; its end is reported next.
long request(__ptrace_request what, pid_t tid, std::uint64_t address, void* data) {
  return ::ptrace(what, tid, as_pointer(address), data);
}

std::string status_field(pid_t tid, const std::string& name) {
  std::ifstream status("/proc/" + std::to_string(tid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return line.substr(name.size() + 1);
  }
  return "";
}

pid_t process_of(pid_t tid) {
  return static_cast<pid_t>(std::atol(status_field(tid, "Tgid").c_str()));
}

constexpr std::uint64_t bit_of(int signal) { return std::uint64_t{1} << (signal - 1); }

std::uint64_t signal_set(pid_t tid, const char* name) {
  return std::strtoull(status_field(tid, name).c_str(), nullptr, 16);
}

// Whether a signal could make `call` of this thread fail with EINTR: it needs a handler, is not
// blocked, and is not in `restarting`, those with SA_RESTART (signal(7)). Handlers for faults, as
// the sanitizers have them, interrupt no call; the C library keeps 32 and 33 for itself.
bool can_be_interrupted(pid_t tid, const std::string& call, std::uint64_t restarting) {
  constexpr std::uint64_t kLibrary = bit_of(32) | bit_of(33);
  constexpr std::uint64_t kFaults = bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGFPE) |
                                    bit_of(SIGILL) | bit_of(SIGTRAP) | bit_of(SIGSYS);
  static const std::set<std::string> kOwnMask = {"ppoll", "pselect6", "epoll_pwait"};
  static const std::set<std::string> kNeverRestarted = {"poll", "select", "epoll_wait", "nanosleep",
                                                        "clock_nanosleep"};
  std::uint64_t signals = signal_set(tid, "SigCgt") & ~kLibrary & ~kFaults;
  if (kOwnMask.contains(call)) return signals != 0;
  signals &= ~signal_set(tid, "SigBlk");
  if (!kNeverRestarted.contains(call)) signals &= ~restarting;
  return signals != 0;
}

json wait_status(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    return {{"kind", "signal"}, {"signal", "SIG" + std::string(name == nullptr ? "?" : name)}};
  }
  return {{"kind", "exit"}, {"code", WEXITSTATUS(status)}};
}

const char* transport_of(int domain, int type) {
  if (domain == AF_UNIX) return "unix";
  if (domain != AF_INET && domain != AF_INET6) return "other";
  if (type == SOCK_STREAM) return "tcp";
  return type == SOCK_DGRAM ? "udp" : "other";
}

json end_of(int fd, int (*call)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (call(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return nullptr;
  return address_of(
      std::as_bytes(std::span(&storage, 1)).first(std::min<std::size_t>(size, sizeof(storage))));
}

bool changes_socket(const std::string& call) {
  return call == "bind" || call == "listen" || call == "connect";
}

bool makes_descriptor(const std::string& call) {
  return call == "socket" || call == "accept" || call == "accept4";
}

}  // namespace

int legal_error(const std::set<std::string>& calls, const std::string& name) {
  struct Legal {
    const char* name;
    int error;
    std::set<std::string> calls;
  };
  // EINTR comes only to programs that catch a signal: Tracer::fits() looks.
  static const std::vector<Legal> kLegal = {
      {"EINTR", EINTR, {"accept",      "accept4", "read",   "readv",     "recvfrom",
                        "recvmsg",     "write",   "writev", "sendto",    "sendmsg",
                        "poll",        "ppoll",   "select", "pselect6",  "epoll_wait",
                        "epoll_pwait", "wait4",   "waitid", "nanosleep", "clock_nanosleep"}},
      {"ECONNABORTED", ECONNABORTED, {"accept", "accept4"}},
      {"EMFILE", EMFILE, {"accept", "accept4", "socket", "pipe2", "dup"}},
      {"ENFILE", ENFILE, {"accept", "accept4", "socket", "pipe2"}},
      {"ENOBUFS", ENOBUFS, {"accept", "accept4", "socket", "sendto", "sendmsg"}},
      {"ENOMEM", ENOMEM, {"accept", "accept4", "socket", "sendto", "sendmsg"}},
  };
  const auto found = std::find_if(kLegal.begin(), kLegal.end(),
                                  [&](const Legal& legal) { return legal.name == name; });
  if (found == kLegal.end()) throw Refusal("usage", "no call may be made to fail with " + name);
  for (const std::string& call : calls) {
    if (!found->calls.contains(call)) throw Refusal("usage", call + " does not fail with " + name);
  }
  return found->error;
}

Tracer::Tracer(pid_t program, Options options)
    : options_(std::move(options)),
      wake_(sock::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd").value()) {
  std::promise<int> attached;
  std::future<int> result = attached.get_future();
  worker_ = std::thread(&Tracer::trace, this, program, std::move(attached));
  if (const int error = result.get(); error != 0) {
    worker_.join();
    throw std::system_error(error, std::system_category(), "ptrace(PTRACE_SEIZE)");
  }
}

Tracer::~Tracer() {
  if (worker_.joinable()) worker_.join();
}

std::vector<Tracer::Event> Tracer::take(std::vector<Event>* unfinished) {
  std::uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof(count));
  const std::lock_guard lock(mutex_);
  for (const auto& [tid, thread] : threads_) {
    if (unfinished == nullptr || !thread.pending) continue;
    unfinished->push_back({thread.pending->time, "call", thread.pending->facts});
  }
  return std::exchange(events_, {});
}

bool Tracer::is_stopped(pid_t tid) {
  const std::lock_guard lock(mutex_);
  const auto thread = threads_.find(tid);
  return thread != threads_.end() && thread->second.stopped;
}

void Tracer::perturb(Perturbation perturbation) {
  static const std::set<std::string> kMoves = {"read",  "readv",  "recvfrom", "recvmsg",
                                               "write", "writev", "sendto",   "sendmsg"};
  for (const std::string& call : perturbation.calls) {
    if (perturbation.act == Perturbation::Act::kCap && !kMoves.contains(call)) {
      throw Refusal("usage", call + " moves no bytes of a stream");
    }
  }
  const std::lock_guard lock(mutex_);
  perturbations_.push_back(std::move(perturbation));
}

void Tracer::emit(std::int64_t time, const char* kind, json facts) {
  events_.push_back({time, kind, std::move(facts)});
  // Not for each: to wake the other thread twice a call costs as much as all the rest.
  const std::uint64_t one = 1;
  if (events_.size() % kMany == 0) (void)!::write(wake_.get(), &one, sizeof(one));
}

// ---------------------------------------------------------------------------------------------
// The tracing thread

void Tracer::trace(pid_t program, std::promise<int> attached) {
  constexpr std::uint64_t kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP |
                                     PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  if (request(PTRACE_SEIZE, program, 0, as_pointer(kOptions)) != 0) {
    attached.set_value(errno);
    return;
  }
  attached.set_value(0);
  while (true) {
    int status = 0;
    // __WNOTHREAD: the children of the testbed's other threads are theirs.
    const pid_t tid = ::waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (tid < 0 && errno == EINTR) continue;
    if (tid < 0) return;  // ECHILD: nobody is left
    on_status(tid, status);
  }
}

Tracer::Thread& Tracer::thread_of(pid_t tid) {
  Thread& thread = threads_[tid];
  if (thread.pid == 0) thread.pid = process_of(tid);
  return thread;
}

// A call whose entry was seen must be followed to its exit.
void Tracer::resume(pid_t tid, const Thread& thread, int signal) {
  (void)request(thread.pending ? PTRACE_SYSCALL : PTRACE_CONT, tid, 0,
                as_pointer(static_cast<std::uint64_t>(signal)));
}

void Tracer::on_status(pid_t tid, int status) {
  std::unique_lock lock(mutex_);
  if (!WIFSTOPPED(status)) {
    on_end(tid, status);
    return;
  }
  Thread& thread = thread_of(tid);
  const int signal = WSTOPSIG(status);
  switch (status >> 16) {
    case PTRACE_EVENT_SECCOMP:
      thread.stopped = false;
      lock.unlock();  // the first source line of a large program takes long to find
      on_entry(tid, thread);
      return;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
      on_child(tid, thread);
      return;
    case PTRACE_EVENT_EXEC:
      on_exec(tid);
      return;
    case PTRACE_EVENT_STOP:
      // A group-stop lasts until SIGCONT; any other such stop is only the beginning of a thread.
      thread.stopped = signal != SIGTRAP;
      if (thread.stopped) {
        (void)request(PTRACE_LISTEN, tid, 0, nullptr);
      } else {
        resume(tid, thread);
      }
      return;
    default:
      break;
  }
  if (signal == kCallStop) {
    on_exit(tid, thread);
  } else {
    on_signal(tid, thread, signal);
  }
}

void Tracer::on_end(pid_t tid, int status) {
  const auto entry = threads_.find(tid);
  if (entry == threads_.end()) return;
  Thread& thread = entry->second;
  // exit_group, or a call in which the thread was killed: it has no result.
  if (thread.pending) emit(thread.pending->time, "call", std::move(thread.pending->facts));
  if (thread.pid == tid) {
    lines_.erase(tid);
    emit(options_.clock(), "process",
         {{"run", options_.run}, {"pid", tid}, {"event", "exit"}, {"status", wait_status(status)}});
  }
  threads_.erase(entry);
}

void Tracer::on_child(pid_t tid, Thread& thread) {
  unsigned long child = 0;
  (void)request(PTRACE_GETEVENTMSG, tid, 0, &child);
  const auto child_tid = static_cast<pid_t>(child);
  if (process_of(child_tid) == child_tid) {
    emit(options_.clock(), "process",
         {{"run", options_.run}, {"pid", thread.pid}, {"event", "fork"}, {"child", child_tid}});
  }
  resume(tid, thread);
}

void Tracer::on_exec(pid_t tid) {
  // The thread that called execve goes on with the number of the process; all others are gone.
  unsigned long former = 0;
  (void)request(PTRACE_GETEVENTMSG, tid, 0, &former);
  if (const auto caller = static_cast<pid_t>(former); caller != tid && threads_.contains(caller)) {
    Thread& leader = threads_[tid];
    if (leader.pending) emit(leader.pending->time, "call", std::move(leader.pending->facts));
    leader = std::move(threads_[caller]);
    threads_.erase(caller);
  }
  Thread& thread = thread_of(tid);
  lines_.erase(thread.pid);
  emit(options_.clock(), "process",
       {{"run", options_.run}, {"pid", thread.pid}, {"event", "exec"}});
  resume(tid, thread);
}

void Tracer::on_signal(pid_t tid, Thread& thread, int signal) {
  const char* name = ::sigabbrev_np(signal);
  emit(options_.clock(), "process",
       {{"run", options_.run},
        {"pid", thread.pid},
        {"tid", tid},
        {"event", "signal"},
        {"signal", name == nullptr ? std::to_string(signal) : "SIG" + std::string(name)}});
  resume(tid, thread, signal);
}

void Tracer::on_entry(pid_t tid, Thread& thread) {
  __ptrace_syscall_info info{};
  (void)request(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);
  const CallSpec* call = info.op == PTRACE_SYSCALL_INFO_SECCOMP
                             ? find_call(static_cast<long>(info.seccomp.nr))
                             : nullptr;
  if (call == nullptr) {
    resume(tid, thread);
    return;
  }
  Pending pending;
  pending.call = call;
  std::copy(std::begin(info.seccomp.args), std::end(info.seccomp.args), pending.args.begin());
  pending.time = options_.clock();
  const Memory memory(tid);
  pending.facts = {{"run", options_.run},
                   {"pid", thread.pid},
                   {"tid", tid},
                   {"name", call->name},
                   {"args", decode_entry(*call, pending.args, memory)},
                   {"result", nullptr},
                   {"error", nullptr},
                   {"ended", nullptr},
                   {"fd", nullptr},
                   {"socket", nullptr},
                   {"accepted", nullptr},
                   {"bytes", nullptr},
                   {"at", nullptr},
                   {"perturbed", nullptr}};
  for (std::size_t i = 0; i < call->args.size(); ++i) {
    if (call->args[i].kind != Arg::kFd) continue;
    const auto fd = static_cast<int>(pending.args[i]);
    pending.facts["fd"] = fd;
    pending.facts["socket"] = socket_of(tid, thread.pid, fd);
  }
  if (const auto place = place_of(tid, thread.pid)) {
    pending.facts["at"] = {
        {"file", place->file}, {"line", place->line}, {"function", place->function}};
  }
  const std::lock_guard lock(mutex_);
  disturb(tid, pending);
  thread.pending = std::move(pending);
  resume(tid, thread);
}

void Tracer::on_exit(pid_t tid, Thread& thread) {
  __ptrace_syscall_info info{};
  (void)request(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);
  if (!thread.pending || info.op != PTRACE_SYSCALL_INFO_EXIT) {
    resume(tid, thread);
    return;
  }
  Pending& pending = *thread.pending;
  undo(tid, pending);
  json& facts = pending.facts;
  std::int64_t result = info.exit.rval;
  if (pending.forced_error) result = -*pending.forced_error;
  facts["ended"] = options_.clock();
  const Memory memory(tid);
  const std::string name = pending.call->name;
  if (pending.forced_error || info.exit.is_error != 0) {
    facts["error"] = error_name(static_cast<int>(-result));
    // A connect that goes on in the background has an address of its own already.
    if (name == "connect") {
      facts["socket"] = socket_of(tid, thread.pid, facts["fd"].get<int>(), true);
    }
  } else {
    facts["result"] = result;
    decode_exit(*pending.call, pending.args, result, memory, facts["args"]);
    facts["bytes"] = moved_bytes(*pending.call, pending.args, result, memory);
    if (changes_socket(name)) {
      facts["socket"] = socket_of(tid, thread.pid, facts["fd"].get<int>(), true);
    }
    if (name == "rt_sigaction") note_handler(pending, memory);
    if (makes_descriptor(name)) {
      const bool is_accept = name != "socket";
      facts[is_accept ? "accepted" : "socket"] =
          socket_of(tid, thread.pid, static_cast<int>(result), true);
      if (!is_accept) facts["fd"] = result;
    }
  }
  if (!pending.perturbed.empty()) facts["perturbed"] = pending.perturbed;
  emit(pending.time, "call", std::move(facts));
  thread.pending.reset();
  resume(tid, thread);
}

// ---------------------------------------------------------------------------------------------
// What a descriptor is, and where a call stands

// By the thread: a process whose first thread has ended shows no descriptors (proc(5)).
std::optional<std::uint64_t> Tracer::inode_of(pid_t tid, int fd) const {
  const std::string path = "/proc/" + std::to_string(tid) + "/fd/" + std::to_string(fd);
  std::array<char, 64> target{};
  if (::readlink(path.c_str(), target.data(), target.size() - 1) < 0) return std::nullopt;
  std::uint64_t inode = 0;
  if (std::sscanf(target.data(), "socket:[%lu]", &inode) != 1) return std::nullopt;
  return inode;
}

json Tracer::socket_of(pid_t tid, pid_t pid, int fd, bool changed) {
  const auto inode = inode_of(tid, fd);
  if (!inode) return nullptr;
  const auto known = sockets_.find(*inode);
  if (known != sockets_.end() && !changed && known->second.settled) return known->second.facts;
  // A moment's copy of the descriptor: it is closed before the call goes on, so that a close by the
  // program still means what it meant.
  constexpr int kOfThread = O_EXCL;  // PIDFD_THREAD, since Linux 6.9
  sock::Fd process(static_cast<int>(::syscall(SYS_pidfd_open, tid, kOfThread)));
  if (!process) process = sock::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return nullptr;
  const sock::Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
  if (!copy) return nullptr;
  const auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof(value);
    (void)::getsockopt(copy.get(), SOL_SOCKET, name, &value, &size);
    return value;
  };
  const int domain = option(SO_DOMAIN), type = option(SO_TYPE);
  Socket socket;
  socket.stream = type == SOCK_STREAM;
  socket.facts = {{"inode", *inode},
                  {"transport", transport_of(domain, type)},
                  {"local", end_of(copy.get(), ::getsockname)},
                  {"remote", end_of(copy.get(), ::getpeername)}};
  // A UDP socket gets its own address at its first datagram, a TCP socket its peer's in the
  // background after a non-blocking connect.
  const json &local = socket.facts["local"], &remote = socket.facts["remote"];
  const std::string transport = socket.facts["transport"];
  if (transport == "udp") socket.settled = local.is_array() && local[1] != 0;
  if (transport == "tcp") socket.settled = remote.is_array() || option(SO_ACCEPTCONN) != 0;
  return (sockets_[*inode] = std::move(socket)).facts;
}

std::optional<Place> Tracer::place_of(pid_t tid, pid_t pid) {
  if (!options_.lines) return std::nullopt;
  std::unique_ptr<SourceLines>& lines = lines_[pid];
  if (!lines) lines = std::make_unique<SourceLines>(pid);
  return lines->at(tid);
}

// ---------------------------------------------------------------------------------------------
// Changing what a call does

// The flags of a handler that was installed; whether there still is one, proc(5) tells.
void Tracer::note_handler(const Pending& pending, const Memory& memory) {
  struct Action {  // rt_sigaction's own struct; the C library's differs
    std::uint64_t handler, flags;
  };
  if (pending.args[1] == 0) return;
  const std::uint64_t bit = bit_of(static_cast<int>(pending.args[0]));
  const bool restarts = (memory.value<Action>(pending.args[1]).flags & SA_RESTART) != 0;
  restarting_ = restarts ? restarting_ | bit : restarting_ & ~bit;
}

bool Tracer::fits(const Perturbation& perturbation, pid_t tid, const Pending& pending) {
  if (!perturbation.calls.contains(pending.call->name)) return false;
  if (perturbation.act == Perturbation::Act::kError) {
    return perturbation.error != EINTR || can_be_interrupted(tid, pending.call->name, restarting_);
  }
  const json& socket = pending.facts["socket"];
  return socket.is_object() && sockets_.at(socket["inode"].get<std::uint64_t>()).stream;
}

void Tracer::disturb(pid_t tid, Pending& pending) {
  for (Perturbation& perturbation : perturbations_) {
    if (!fits(perturbation, tid, pending)) continue;
    const std::uint64_t place = ++perturbation.seen;
    if (place < perturbation.first) continue;
    if (perturbation.times != 0 && place >= perturbation.first + perturbation.times) continue;
    if (perturbation.act == Perturbation::Act::kCap) {
      if (cap(tid, pending, perturbation.bytes)) {
        pending.perturbed = "capped at " + std::to_string(perturbation.bytes);
      }
    } else {
      user_regs_struct registers{};
      (void)request(PTRACE_GETREGS, tid, 0, &registers);
      registers.orig_rax = static_cast<unsigned long long>(-1);  // no call at all
      (void)request(PTRACE_SETREGS, tid, 0, &registers);
      pending.forced_error = perturbation.error;
      pending.perturbed = error_name(perturbation.error);
    }
    return;
  }
}

// Asks for at most `bytes` bytes. False when the call asks for no more anyway.
bool Tracer::cap(pid_t tid, Pending& pending, std::size_t bytes) {
  const std::string name = pending.call->name;
  const bool plain = name == "read" || name == "write" || name == "recvfrom" || name == "sendto";
  const bool message = name == "recvmsg" || name == "sendmsg";
  // MSG_WAITALL promises to wait for all of it (recv(2)).
  if (name == "recvfrom" && (pending.args[3] & MSG_WAITALL) != 0) return false;
  if (name == "recvmsg" && (pending.args[2] & MSG_WAITALL) != 0) return false;
  user_regs_struct registers{};
  (void)request(PTRACE_GETREGS, tid, 0, &registers);
  pending.original = pending.args;
  if (plain) {
    if (pending.args[2] <= bytes) return false;
    registers.rdx = bytes;
    (void)request(PTRACE_SETREGS, tid, 0, &registers);
    pending.changed = true;
    return true;
  }
  // The first part of the vector is made short, and the vector ends there.
  const Memory memory(tid);
  const auto change = [&](std::uint64_t address, std::uint64_t value) {
    pending.memory.emplace_back(address, memory.value<std::uint64_t>(address));
    (void)request(PTRACE_POKEDATA, tid, address, as_pointer(value));  // also where it is read-only
  };
  const auto header = message ? memory.value<msghdr>(pending.args[1]) : msghdr{};
  const std::uint64_t vector =
      message ? reinterpret_cast<std::uintptr_t>(header.msg_iov) : pending.args[1];
  const std::uint64_t count = message ? header.msg_iovlen : pending.args[2];
  if (count == 0) return false;
  const auto first = memory.value<iovec>(vector);
  if (first.iov_len <= bytes && count == 1) return false;
  if (first.iov_len == 0) return false;
  if (first.iov_len > bytes) change(vector + offsetof(iovec, iov_len), bytes);
  if (message) {
    change(pending.args[1] + offsetof(msghdr, msg_iovlen), 1);
  } else {
    registers.rdx = 1;
    (void)request(PTRACE_SETREGS, tid, 0, &registers);
    pending.changed = true;
  }
  return true;
}

// The program may rely on its registers and its memory being as it left them.
void Tracer::undo(pid_t tid, const Pending& pending) {
  for (const auto& [address, word] : pending.memory) {
    (void)request(PTRACE_POKEDATA, tid, address, as_pointer(word));
  }
  if (!pending.changed && !pending.forced_error) return;
  user_regs_struct registers{};
  (void)request(PTRACE_GETREGS, tid, 0, &registers);
  if (pending.changed) registers.rdx = pending.original[2];
  if (pending.forced_error) {
    registers.rax = static_cast<unsigned long long>(-static_cast<long long>(*pending.forced_error));
  }
  (void)request(PTRACE_SETREGS, tid, 0, &registers);
}

}  // namespace testbed
