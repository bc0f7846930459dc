#include "run.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include "enter.h"
#include "pcap.h"
#include "refusal.h"
#include "sock/error.h"

namespace testbed {
namespace {

using nlohmann::json;

constexpr int kChannelFd = 3;  // where the channel lies for the sandboxed first process
constexpr uid_t kFirstUid = 60000;
constexpr uid_t kUids = 5000;

std::pair<sock::Fd, sock::Fd> make_pipe() {
  std::array<int, 2> ends{};
  (void)sock::check(::pipe2(ends.data(), O_CLOEXEC), "pipe2").value();
  return {sock::Fd(ends[0]), sock::Fd(ends[1])};
}

sock::Fd open_null() {
  return sock::Fd(sock::check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open(/dev/null)").value());
}

// In T2 the programs of one testbed share a user that nothing else has, so that RLIMIT_NPROC
// counts only them.
uid_t program_uid() { return kFirstUid + static_cast<uid_t>(::getpid()) % kUids; }

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// The words of the command line that builds the sandbox, and the descriptors it inherits.
class Sandbox {
 public:
  Sandbox(Tier tier, const RunRequest& request) : tier_(tier), request_(request) {}

  std::vector<std::string> command(const std::map<std::string, std::string>& files) {
    if (tier_ != Tier::kLoopback) walls(files);
    const uid_t uid = program_uid();
    add({tier_ == Tier::kLoopback ? enter_path() : std::string("/run/sockwork-enter"),
         std::to_string(kChannelFd), request_.stdin_kind == Stdin::kClosed ? "closed" : "open",
         tier_ == Tier::kRoot ? std::to_string(uid) : std::string("-1"),
         std::to_string(request_.limits.nofile), std::to_string(request_.limits.nproc),
         std::to_string(request_.limits.cpu), std::to_string(request_.limits.fsize), "--"});
    for (const std::string& word : request_.argv) words_.push_back(word);
    return words_;
  }
  std::vector<sock::Fd>& inherited() { return inherited_; }

 private:
  void add(std::initializer_list<std::string> words) {
    words_.insert(words_.end(), words.begin(), words.end());
  }

  void walls(const std::map<std::string, std::string>& files) {
    add({"bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", request_.host,
         "--as-pid-1", "--new-session", "--cap-drop", "ALL"});
    if (tier_ == Tier::kUser) add({"--unshare-user", "--uid", "1000", "--gid", "1000"});
    if (tier_ == Tier::kRoot) {
      add({"--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"});
    }
    system_folders();
    add({"--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"});
    // A folder that bubblewrap makes on the way to a file may be closed to the program's user.
    for (const char* path : {"/etc", "/run"}) add({"--perms", "0755", "--dir", path});
    for (const char* path :
         {"/etc/alternatives", "/etc/ld.so.cache", "/etc/services", "/etc/protocols"}) {
      if (exists(path) && !files.contains(path)) add({"--ro-bind", path, path});
    }
    for (const auto& [path, text] : files) add_file(path, text);
    if (!request_.directory.empty())
      add({"--ro-bind", request_.directory, "/work", "--chdir", "/work"});
    add({"--ro-bind", enter_path(), "/run/sockwork-enter", "--clearenv"});
    for (const auto& [name, value] : request_.environment) add({"--setenv", name, value});
    add({"--"});
  }

  // /usr and the top-level links into it; distributions without merged /usr have real folders.
  void system_folders() {
    add({"--ro-bind", "/usr", "/usr"});
    for (const std::string name : {"bin", "sbin", "lib", "lib32", "lib64"}) {
      const std::string path = "/" + name;
      struct stat entry {};
      if (::lstat(path.c_str(), &entry) != 0) continue;
      if (S_ISLNK(entry.st_mode)) {
        add({"--symlink", "usr/" + name, path});
      } else {
        add({"--ro-bind", path, path});
      }
    }
  }

  void add_file(const std::string& path, const std::string& text) {
    sock::Fd file = memory_file("file", std::as_bytes(std::span(text)));
    // Above the channel's place; the child clears close-on-exec for what it hands on.
    const int fd = sock::check(::fcntl(file.get(), F_DUPFD_CLOEXEC, 64), "fcntl(F_DUPFD)").value();
    inherited_.emplace_back(fd);
    add({"--perms", "0444", "--ro-bind-data", std::to_string(fd), path});
  }

  Tier tier_;
  const RunRequest& request_;
  std::vector<std::string> words_;
  std::vector<sock::Fd> inherited_;
};

std::map<std::string, std::string> etc_files(const Network& network, const RunRequest& request,
                                             const std::string& etc_hosts,
                                             const std::string& resolver) {
  std::map<std::string, std::string> files;
  const std::string uid = network.tier() == Tier::kRoot ? std::to_string(program_uid()) : "1000";
  files["/etc/passwd"] =
      "root:x:0:0:root:/tmp:/bin/sh\nstudent:x:" + uid + ":" + uid + "::/tmp:/bin/sh\n";
  files["/etc/group"] = "root:x:0:\nstudent:x:" + uid + ":\n";
  files["/etc/nsswitch.conf"] =
      "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
  files["/etc/host.conf"] = "multi on\n";  // all addresses that /etc/hosts has for a name
  files["/etc/hosts"] = etc_hosts.empty() ? "127.0.0.1 localhost\n::1 localhost\n" : etc_hosts;
  files["/etc/resolv.conf"] =
      resolver.empty() ? "" : "nameserver " + resolver + "\noptions timeout:2 attempts:2\n";
  for (const auto& [path, text] : request.files) files[path] = text;
  return files;
}

std::map<std::string, std::string> environment_of(const RunRequest& request) {
  std::map<std::string, std::string> environment = {
      {"PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
      {"LANG", "C.UTF-8"},
      {"HOME", "/tmp"},
      {"USER", "student"},
      {"TZ", "UTC"}};
  for (const auto& [name, value] : request.environment) environment[name] = value;
  return environment;
}

}  // namespace

std::string enter_path() {
  std::array<char, 4096> buffer{};
  const ssize_t size = ::readlink("/proc/self/exe", buffer.data(), buffer.size() - 1);
  const std::string own(buffer.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
  return own.substr(0, own.rfind('/') + 1) + "sockwork-enter";
}

bool Output::drain() {
  bool changed = false;
  std::array<std::byte, 65536> buffer;
  while (pipe_) {
    const auto size = pipe_.read(buffer);
    if (size.error() == EAGAIN || size.error() == EINTR) return changed;
    if (!size || *size == 0) {
      pipe_.reset();
      return true;
    }
    changed = true;
    total_ += *size;
    const std::size_t room = limit_ > kept_.size() ? limit_ - kept_.size() : 0;
    kept_.append(reinterpret_cast<const char*>(buffer.data()), std::min(*size, room));
  }
  return changed;
}

Run::Run(const Network& network, RunRequest request, const std::string& etc_hosts,
         const std::string& resolver)
    : request_(std::move(request)),
      own_pid_namespace_(network.tier() != Tier::kLoopback),
      own_user_(network.tier() == Tier::kRoot),
      stdout_(sock::Fd(), request_.stdout_limit),
      stderr_(sock::Fd(), request_.stderr_limit) {
  request_.environment = environment_of(request_);
  auto [out_read, out_write] = make_pipe();
  auto [err_read, err_write] = make_pipe();
  sock::Fd input = open_null();
  if (request_.stdin_kind == Stdin::kPipe) {
    auto [in_read, in_write] = make_pipe();
    input = std::move(in_read);
    stdin_pipe_ = std::move(in_write);
  } else if (request_.stdin_kind == Stdin::kFile) {
    input = std::move(request_.stdin_file);
  }
  std::array<int, 2> channel{};
  (void)sock::check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel.data()),
                    "socketpair")
      .value();
  channel_ = sock::Fd(channel[0]);
  const sock::Fd other_end(channel[1]);
  const int on = 1;
  (void)sock::check(::setsockopt(channel_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)),
                    "setsockopt(SO_PASSCRED)")
      .value();
  (void)channel_.set_nonblocking(true);
  (void)out_read.set_nonblocking(true);
  (void)err_read.set_nonblocking(true);
  stdout_ = Output(std::move(out_read), request_.stdout_limit);
  stderr_ = Output(std::move(err_read), request_.stderr_limit);

  Sandbox sandbox(network.tier(), request_);
  const auto files = own_pid_namespace_ ? etc_files(network, request_, etc_hosts, resolver)
                                        : std::map<std::string, std::string>();
  const std::vector<std::string> command = sandbox.command(files);
  spawn(network, command, sandbox.inherited(), input, out_write, err_write, other_end);
}

void Run::spawn(const Network& network, const std::vector<std::string>& command,
                std::vector<sock::Fd>& inherited, const sock::Fd& input, const sock::Fd& output,
                const sock::Fd& errors, const sock::Fd& channel) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const auto& [name, value] : request_.environment) variables.push_back(name + "=" + value);
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  const Host& host = network.host(request_.host);

  sandbox_ = sock::check(::fork(), "fork").value();
  if (sandbox_ != 0) return;
  // In the child: only system calls from here on. 128 is an exit code nothing else of ours has.
  // Nobody may end bubblewrap half-way, a Ctrl-C in the terminal neither: its child would wait for
  // it for ever. When the testbed goes, sockwork-enter finds the channel closed and ends
  // everything.
  ::setsid();
  if (host.ns && ::setns(host.ns.get(), CLONE_NEWNET) != 0) ::_exit(128);
  if (!own_pid_namespace_ && !request_.directory.empty() &&
      ::chdir(request_.directory.c_str()) != 0) {
    ::_exit(128);
  }
  // The channel may itself lie at 0-3, where the streams go: move it out of the way first.
  const int safe = ::fcntl(channel.get(), F_DUPFD, 32);
  const int in = ::fcntl(input.get(), F_DUPFD, 32);
  const int out = ::fcntl(output.get(), F_DUPFD, 32);
  const int err = ::fcntl(errors.get(), F_DUPFD, 32);
  if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0 ||
      ::dup2(safe, kChannelFd) < 0) {
    ::_exit(128);
  }
  for (const int fd : {safe, in, out, err}) ::close(fd);
  for (const sock::Fd& fd : inherited) ::fcntl(fd.get(), F_SETFD, 0);
  ::execvpe(argv[0], argv.data(), environment.data());
  ::_exit(128);
}

Run::~Run() { kill(); }

bool Run::receive() {
  bool changed = false;
  while (channel_) {
    Message message{};
    iovec vector{&message, sizeof(message)};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t size = ::recvmsg(channel_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return changed;
    if (size !=
        sizeof(message)) {  // sockwork-enter is gone: the sandbox could not be made, or was killed
      channel_.reset();
      if (phase_ == Phase::kStarting) {
        phase_ = Phase::kFailed;
        exec_error_ = ECHILD;
      } else if (phase_ == Phase::kRunning) {
        phase_ = Phase::kEnded;
        wait_status_ = SIGKILL;
      }
      return true;
    }
    ucred sender{};
    if (const cmsghdr* part = CMSG_FIRSTHDR(&header);
        part != nullptr && part->cmsg_type == SCM_CREDENTIALS) {
      std::memcpy(&sender, CMSG_DATA(part), sizeof(sender));
    }
    const Phase before = phase_;
    on_message(message.type, message.value, sender.pid);
    changed |= phase_ != before;
  }
  return changed;
}

void Run::on_message(char type, int value, pid_t sender) {
  switch (type) {
    case 'I':
      init_ = sender;
      break;
    case 'R':
      program_ = sender;
      let_go();
      break;
    case 'E':
      if (phase_ == Phase::kStarting) phase_ = Phase::kRunning;
      break;
    case 'X':
      if (phase_ != Phase::kStarting) break;
      phase_ = Phase::kFailed;
      exec_error_ = value;
      break;
    case 'S':
      if (phase_ != Phase::kRunning) break;
      // What the program wrote before it ended lies in the pipes by now.
      (void)stdout_.drain();
      (void)stderr_.drain();
      phase_ = Phase::kEnded;
      wait_status_ = value;
      break;
    default:
      break;
  }
}

// The program waits before its execve until it is attached to, if it is to be traced.
void Run::let_go() {
  std::vector<sock_filter> filter;
  if (request_.trace) {
    try {
      tracer_ = std::make_unique<Tracer>(
          program_, Tracer::Options{request_.number, request_.lines, request_.clock});
    } catch (const std::system_error& error) {
      phase_ = Phase::kFailed;
      exec_error_ = error.code().value();
      return;
    }
    filter = call_filter(request_.io_uring);
  }
  const Message go{'G', static_cast<int>(filter.size())};
  (void)!::send(channel_.get(), &go, sizeof(go), MSG_NOSIGNAL);
  if (filter.empty()) return;
  (void)!::send(channel_.get(), filter.data(), filter.size() * sizeof(sock_filter), MSG_NOSIGNAL);
}

json Run::status() const {
  if (phase_ != Phase::kEnded) return {{"kind", "running"}};
  if (WIFSIGNALED(wait_status_)) {
    const int number = WTERMSIG(wait_status_);
    const char* name = ::sigabbrev_np(number);
    const std::string text = name == nullptr ? std::to_string(number) : "SIG" + std::string(name);
    return {{"kind", "signal"}, {"signal", text}};
  }
  return {{"kind", "exit"}, {"code", WEXITSTATUS(wait_status_)}};
}

std::vector<Process> Run::processes(Detail detail) const {
  if (init_ < 0) return {};
  std::vector<Process> found = processes_below(init_, detail);
  if (!tracer_) return found;
  // A traced thread is in a tracing stop for a moment at each call, and also for as long as a
  // signal has stopped it: proc(5) shows t for both.
  for (Process& process : found) {
    if (process.state == 't') process.state = tracer_->is_stopped(process.pid) ? 'T' : 'R';
    for (Thread& thread : process.threads) {
      if (thread.state == 't') thread.state = tracer_->is_stopped(thread.tid) ? 'T' : 'R';
    }
  }
  return found;
}

void Run::signal(int number, bool all) const {
  if (!all) {
    if (phase_ == Phase::kRunning) ::kill(program_, number);
    return;
  }
  for (const Process& process : processes(Detail::kIds)) ::kill(process.pid, number);
}

std::uint64_t Run::limit_descriptors(std::uint64_t wanted) const {
  const std::vector<Process> targets = processes(Detail::kIds);
  auto [result_read, result_write] = make_pipe();
  const uid_t user = program_uid();
  const pid_t child = sock::check(::fork(), "fork").value();
  if (child == 0) {
    // prlimit(2) is for the program's own user, or for CAP_SYS_RESOURCE, which a root in a
    // container may lack.
    if (own_user_ && (::setgroups(0, nullptr) != 0 || ::setresgid(user, user, user) != 0 ||
                      ::setresuid(user, user, user) != 0)) {
      ::_exit(1);
    }
    for (const Process& target : targets) {
      rlimit limit{};
      if (::prlimit(target.pid, RLIMIT_NOFILE, nullptr, &limit) != 0) continue;
      const std::uint64_t previous = limit.rlim_cur;
      limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
      if (::prlimit(target.pid, RLIMIT_NOFILE, &limit, nullptr) != 0) continue;
      if (target.pid == program_) (void)!::write(result_write.get(), &previous, sizeof(previous));
    }
    ::_exit(0);
  }
  result_write.reset();
  std::uint64_t previous = 0;
  const ssize_t size = ::read(result_read.get(), &previous, sizeof(previous));
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (size != sizeof(previous)) throw std::system_error(EPERM, std::system_category(), "prlimit");
  return previous;
}

// The first process takes the whole pid namespace with it (pid_namespaces(7)); it is gone only
// when all the others are. One that is still to come ends by itself: its channel is closed.
void Run::kill_pid_namespace() {
  channel_.reset();
  if (init_ >= 0) ::kill(init_, SIGKILL);
  // bubblewrap waits for that process and ends with it.
  const sock::Fd sandbox(static_cast<int>(::syscall(SYS_pidfd_open, sandbox_, 0)));
  pollfd gone{sandbox.get(), POLLIN, 0};
  constexpr int kPatience = 10000;  // milliseconds; the kernel needs a few
  if (!sandbox || ::poll(&gone, 1, kPatience) != 1) ::kill(sandbox_, SIGKILL);
}

void Run::kill() {
  if (sandbox_ < 0) return;
  if (own_pid_namespace_) {
    kill_pid_namespace();
  } else {
    // Without a namespace: until a look finds nobody. New ones can only come from those found.
    for (std::vector<Process> left = processes(Detail::kIds); !left.empty();
         left = processes(Detail::kIds)) {
      bool alive = false;
      for (const Process& process : left) {
        alive |= process.state != 'Z';
        ::kill(process.pid, SIGKILL);
      }
      if (!alive) break;
    }
    ::kill(sandbox_, SIGKILL);
  }
  int status = 0;
  while (::waitpid(sandbox_, &status, 0) < 0 && errno == EINTR) {
  }
  sandbox_ = -1;
  channel_.reset();
  tracer_.reset();  // its thread ends with the last of what it traced
}

}  // namespace testbed
