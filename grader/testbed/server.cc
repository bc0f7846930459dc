#include "server.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "barrier.h"
#include "facts.h"
#include "forge.h"
#include "history.h"
#include "link.h"
#include "probe.h"
#include "refusal.h"
#include "run.h"
#include "sock/error.h"
#include "trace.h"

namespace testbed {
namespace {

using nlohmann::json;

constexpr std::size_t kMostRequest = 256 << 10;
constexpr std::size_t kMostReply = 48 << 10;  // larger ones travel in a memfd
constexpr std::uint64_t kCaptureLimit = 64 << 20;
constexpr std::size_t kMostRecords = 2000;                           // of the trace in one reply
constexpr std::int64_t kFirstLook = 200'000, kLastLook = 5'000'000;  // nanoseconds between looks

std::int64_t clock_now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

void expect_fields(const json& request, std::set<std::string> known) {
  known.insert({"id", "do"});
  for (const auto& [key, value] : request.items()) {
    if (!known.contains(key)) {
      throw Refusal("usage", request.at("do").get<std::string>() + " has no field " + key);
    }
  }
}

std::vector<std::byte> decode_base64(const std::string& text) {
  std::vector<std::byte> bytes;
  unsigned bits = 0, held = 0;
  for (const char letter : text) {
    if (letter == '=') break;
    constexpr const char* kLetters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char* at = std::strchr(kLetters, letter);
    if (at == nullptr || *at == '\0') throw Refusal("usage", "not base64");
    bits = bits << 6 | static_cast<unsigned>(at - kLetters);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes.push_back(static_cast<std::byte>(bits >> held & 0xff));
  }
  return bytes;
}

int signal_number(const std::string& name) {
  for (int number = 1; number < NSIG; ++number) {
    const char* abbreviation = ::sigabbrev_np(number);
    if (abbreviation != nullptr && name == "SIG" + std::string(abbreviation)) return number;
  }
  throw Refusal("usage", "no signal named " + name);
}

class Server final : public Facts {
 public:
  Server(int control_fd, Tier tier) : control_(control_fd), tier_(tier) {}

  int serve();

  Network& network() override {
    if (!network_) throw Refusal("usage", "no testbed is open yet");
    return *network_;
  }
  Link* link() override { return link_.get(); }
  SocketTable& table(const std::string& host) override;
  Run& run(std::uint64_t number) override;
  std::int64_t now() override { return clock_now(CLOCK_MONOTONIC) - start_; }
  std::uint64_t output_total() override;
  json rows(const std::string& host, Protocol protocol) override;

 private:
  struct Pending {  // a wait, or a run whose exec has not been reported
    std::uint64_t id = 0;
    Barrier barrier;
    std::int64_t deadline = 0;
    std::int64_t next_look = 0, interval = kFirstLook;
  };
  using Handler = json (Server::*)(const json&);

  // The loop.
  void wait_for_events();
  void look_at_barriers();
  void take_calls(Run& run, std::vector<Tracer::Event>* unfinished = nullptr);
  void note_row(const std::string& host, json row);
  void hasten();  // something happened: barriers look again soon
  void report_started_runs();
  bool receive_request();
  void handle(const json& request);
  void reply(std::uint64_t id, json body);
  void refuse(std::uint64_t id, const std::string& code, const std::string& message);
  void kill_runs() noexcept;

  // The verbs; each returns the reply's fields. A null reply is sent later.
  json open(const json& request);
  json socket(const json& request);
  json start_run(const json& request);
  json wait(const json& request);
  json cancel(const json& request);
  json freeze(const json& request);
  json thaw(const json& request);
  json signal(const json& request);
  json limit(const json& request);
  json list_rows(const json& request);
  json list_processes(const json& request);
  json read_output(const json& request);
  json add_rule(const json& request);
  json release(const json& request);
  json end_rule(const json& request);
  json inject(const json& request);
  json packets(const json& request);
  json capture(const json& request);
  json note(const json& request);
  json trace(const json& request);
  json trace_after(std::size_t first);
  json perturb(const json& request);
  json stats(const json& request);
  json end(const json& request);

  json attach(const char* name, std::span<const std::byte> bytes);
  Link& need_link();
  std::optional<std::uint64_t> host_index(const std::string& name);
  std::vector<std::byte> make_reset(const json& request, const Route& route);
  json packet_facts(std::size_t index, Conversations& conversations);
  json counts();

  sock::Fd control_;
  Tier tier_;
  std::int64_t start_ = clock_now(CLOCK_MONOTONIC);
  std::unique_ptr<Network> network_;
  std::unique_ptr<Link> link_;
  std::map<std::string, SocketTable> tables_;
  std::map<std::uint64_t, std::unique_ptr<Run>> runs_;
  std::map<std::uint64_t, std::uint64_t> starting_;  // run -> request
  std::vector<Pending> pending_;
  Trace trace_;
  Conversations followed_;         // of the packets before record `next_followed_`
  std::size_t next_followed_ = 0;  // of the trace, as far as trace_after() has read it
  std::string etc_hosts_, resolver_;
  std::vector<sock::Fd> received_fds_, reply_fds_;
  bool done_ = false;
};

// ---------------------------------------------------------------------------------------------
// The loop

int Server::serve() {
  while (!done_) {
    wait_for_events();
    if (link_) {
      // Bounded, so that a flood of frames cannot keep requests and barriers waiting for ever.
      constexpr int kMostBatches = 64;
      for (int i = 0; i < kMostBatches && link_->receive(); ++i) {
      }
      (void)link_->tick();
    }
    for (const auto& [number, run] : runs_) {
      const bool changed = run->receive();
      if (changed) {
        trace_.add(now(), "process",
                   {{"run", number}, {"pid", run->pid()}, {"status", run->status()}});
      }
      const bool printed = run->out().drain(), complained = run->err().drain();
      if (changed || printed || complained) hasten();
      take_calls(*run);
    }
    report_started_runs();
    look_at_barriers();
    if (!receive_request()) break;
  }
  kill_runs();
  return 0;
}

void Server::wait_for_events() {
  std::vector<pollfd> waits = {{control_.get(), POLLIN, 0}};
  if (link_) waits.push_back({link_->descriptor(), POLLIN, 0});
  for (const auto& [number, run] : runs_) {
    const int traced = run->tracer() == nullptr ? -1 : run->tracer()->descriptor();
    for (const int fd :
         {run->channel(), run->out().descriptor(), run->err().descriptor(), traced}) {
      if (fd >= 0) waits.push_back({fd, POLLIN, 0});
    }
  }
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::int64_t next = link_ ? link_->tick().value_or(kNever) : kNever;
  for (const Pending& entry : pending_) next = std::min(next, entry.next_look);
  timespec timeout{};
  if (next != kNever) {
    const std::int64_t left = std::max<std::int64_t>(0, next - now());
    timeout = {left / 1'000'000'000, left % 1'000'000'000};
  }
  const timespec* limit = next == kNever ? nullptr : &timeout;
  if (::ppoll(waits.data(), waits.size(), limit, nullptr) < 0 && errno != EINTR) {
    throw std::system_error(errno, std::system_category(), "ppoll");
  }
  if (link_ && (waits[1].revents & POLLIN) != 0) hasten();
}

void Server::take_calls(Run& run, std::vector<Tracer::Event>* unfinished) {
  if (run.tracer() == nullptr) return;
  for (const Tracer::Event& event : run.tracer()->take(unfinished)) {
    trace_.add(event.time, event.kind, event.facts);
  }
}

void Server::note_row(const std::string& host, json row) {
  row["host"] = host;
  trace_.add(now(), "row", row);
}

void Server::hasten() {
  const std::int64_t soon = now();
  for (Pending& entry : pending_) {
    // Not sooner than a first look's time after the last one, and for a costly question not sooner
    // at all: during a bulk transfer every batch of frames comes by here.
    if (entry.interval > 2 * kLastLook) continue;
    entry.next_look =
        std::min(entry.next_look, std::max(soon, entry.next_look - entry.interval + kFirstLook));
    entry.interval = kFirstLook;
  }
}

void Server::look_at_barriers() {
  for (std::size_t i = 0; i < pending_.size();) {
    Pending& entry = pending_[i];
    const std::int64_t time = now();
    if (time < entry.next_look) {
      ++i;
      continue;
    }
    Look look;
    try {
      look = entry.barrier();
      // A look at thousands of processes takes long: frames must not wait for it most of the time.
      entry.interval = std::max(entry.interval, 2 * (now() - time));
    } catch (const std::exception& error) {
      refuse(entry.id, "system", error.what());
      pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    if (!look.held && !look.ended && time < entry.deadline) {
      entry.interval = entry.interval < kLastLook ? entry.interval * 2 : entry.interval;
      entry.next_look = std::min(now() + entry.interval, entry.deadline);
      ++i;
      continue;
    }
    if (const json row = look.seen.value("row", json()); row.is_object()) {
      note_row(look.seen["host"].get<std::string>(), row);
    }
    json body = {{"held", look.held}, {"seen", std::move(look.seen)}};
    if (look.ended) body["ended"] = true;
    reply(entry.id, std::move(body));
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Server::report_started_runs() {
  for (auto entry = starting_.begin(); entry != starting_.end();) {
    const auto [number, id] = *entry;
    Run& started = *runs_.at(number);
    if (started.phase() == Phase::kStarting) {
      ++entry;
      continue;
    }
    entry = starting_.erase(entry);
    if (started.phase() == Phase::kFailed) {
      (void)started.err().drain();
      const std::string said = started.err().kept();
      refuse(id, "exec",
             started.request().argv.front() + ": " + std::strerror(started.exec_error()) +
                 (said.empty() ? "" : " (" + said + ")"));
      continue;
    }
    if (sock::Fd input = started.take_stdin()) reply_fds_.push_back(std::move(input));
    reply(id, {{"run", number}, {"pid", started.pid()}});
  }
}

bool Server::receive_request() {
  static std::vector<char> buffer(kMostRequest);
  iovec vector{buffer.data(), buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 8)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(control_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  received_fds_.clear();
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      received_fds_.emplace_back(fd);
    }
  }
  if (size == 0) return false;
  if ((header.msg_flags & MSG_TRUNC) != 0) {
    refuse(0, "usage", "a request is at most 256 KiB");
    return true;
  }
  json request = json::parse(buffer.data(), buffer.data() + size, nullptr, false);
  if (!request.is_object() || !request.contains("id") || !request["id"].is_number_unsigned()) {
    refuse(0, "usage", "a request is a JSON object with an id");
    return true;
  }
  handle(request);
  return true;
}

void Server::handle(const json& request) {
  static const std::map<std::string, Handler> kVerbs = {{"open", &Server::open},
                                                        {"socket", &Server::socket},
                                                        {"run", &Server::start_run},
                                                        {"wait", &Server::wait},
                                                        {"cancel", &Server::cancel},
                                                        {"freeze", &Server::freeze},
                                                        {"thaw", &Server::thaw},
                                                        {"signal", &Server::signal},
                                                        {"limit", &Server::limit},
                                                        {"rows", &Server::list_rows},
                                                        {"processes", &Server::list_processes},
                                                        {"output", &Server::read_output},
                                                        {"rule", &Server::add_rule},
                                                        {"release", &Server::release},
                                                        {"unrule", &Server::end_rule},
                                                        {"inject", &Server::inject},
                                                        {"packets", &Server::packets},
                                                        {"capture", &Server::capture},
                                                        {"note", &Server::note},
                                                        {"trace", &Server::trace},
                                                        {"perturb", &Server::perturb},
                                                        {"stats", &Server::stats},
                                                        {"end", &Server::end}};
  const auto id = request["id"].get<std::uint64_t>();
  try {
    const auto verb = kVerbs.find(request.at("do").get<std::string>());
    if (verb == kVerbs.end()) throw Refusal("usage", "no verb named " + request["do"].dump());
    json body = (this->*verb->second)(request);
    if (!body.is_null()) reply(id, std::move(body));
  } catch (const Refusal& refusal) {
    refuse(id, refusal.code(), refusal.what());
  } catch (const json::exception& error) {
    refuse(id, "usage", error.what());
  } catch (const std::exception& error) {
    refuse(id, "system", error.what());
  }
  reply_fds_.clear();
}

void Server::reply(std::uint64_t id, json body) {
  body["id"] = id;
  std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kMostReply) {
    reply_fds_.insert(reply_fds_.begin(), memory_file("reply", std::as_bytes(std::span(text))));
    text = json{{"id", id}, {"reply_attached", true}}.dump();
  }
  iovec vector{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 4)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!reply_fds_.empty()) {
    std::vector<int> fds;
    for (const sock::Fd& fd : reply_fds_) fds.push_back(fd.get());
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    auto* part = reinterpret_cast<cmsghdr*>(control.data());
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(part), fds.data(), sizeof(int) * fds.size());
  }
  // A harness that is gone is noticed when the next request is read.
  (void)!::sendmsg(control_.get(), &header, MSG_NOSIGNAL);
  reply_fds_.clear();
}

void Server::refuse(std::uint64_t id, const std::string& code, const std::string& message) {
  reply(id, {{"error", {{"code", code}, {"message", message}}}});
}

void Server::kill_runs() noexcept {
  for (const auto& [number, run] : runs_) run->kill();
}

// ---------------------------------------------------------------------------------------------
// Facts

SocketTable& Server::table(const std::string& host) {
  const auto found = tables_.find(host);
  if (found != tables_.end()) return found->second;
  return tables_.emplace(host, SocketTable(network(), network().host(host))).first->second;
}

Run& Server::run(std::uint64_t number) {
  const auto found = runs_.find(number);
  if (found == runs_.end()) throw Refusal("unknown", "no run " + std::to_string(number));
  return *found->second;
}

std::uint64_t Server::output_total() {
  std::uint64_t total = 0;
  for (const auto& [number, run] : runs_) total += run->out().total() + run->err().total();
  return total;
}

json Server::rows(const std::string& host, Protocol protocol) {
  std::map<std::uint64_t, std::vector<pid_t>> owners;
  for (const auto& [number, run] : runs_) {
    for (const Process& process : run->processes(Detail::kAll)) {
      for (const std::uint64_t inode : process.sockets) owners[inode].push_back(process.pid);
    }
  }
  json rows = json::array();
  for (const Row& row : table(host).rows(protocol, SocketTable::Bound::kShown)) {
    const auto owner = owners.find(row.inode);
    rows.push_back(to_json(row, owner == owners.end() ? std::vector<pid_t>() : owner->second));
  }
  return rows;
}

Link& Server::need_link() {
  if (!link_) throw Refusal("usage", "this tier has no link");
  return *link_;
}

json Server::attach(const char* name, std::span<const std::byte> bytes) {
  reply_fds_.push_back(memory_file(name, bytes));
  return {{"attached", true}};
}

std::optional<std::uint64_t> Server::host_index(const std::string& name) {
  for (std::size_t i = 0; i < network().hosts().size(); ++i) {
    if (network().hosts()[i].name == name) return i;
  }
  throw Refusal("unknown", "no host named " + name);
}

// ---------------------------------------------------------------------------------------------
// Verbs

json Server::open(const json& request) {
  expect_fields(request, {"hosts", "names", "resolver", "capture_limit", "trace_limit"});
  if (network_) throw Refusal("usage", "a testbed is open already");
  const auto names = request.value("hosts", std::vector<std::string>{"target", "peer"});
  constexpr std::size_t kMostHosts = 8;
  if (names.empty() || names.size() > kMostHosts ||
      std::set(names.begin(), names.end()).size() != names.size()) {
    throw Refusal("usage", "1 to 8 different host names");
  }
  etc_hosts_ = request.value("names", std::string());
  resolver_ = request.value("resolver", std::string());
  network_ = std::make_unique<Network>(tier_, names);
  trace_ = Trace(std::min(request.value("trace_limit", Trace::kMostRecords), Trace::kMostRecords));
  start_ = clock_now(CLOCK_MONOTONIC);
  const std::int64_t realtime = clock_now(CLOCK_REALTIME);
  if (network_->has_link()) {
    link_ = std::make_unique<Link>(
        *network_, [this] { return now(); }, realtime,
        request.value("capture_limit", kCaptureLimit),
        [this](std::size_t index) {
          const Passage& passage = link_->passages()[index];
          trace_.packet(passage.time, index, passage.bulk);
        });
  }
  network_->up();
  json hosts = json::object();
  for (const Host& host : network_->hosts()) {
    hosts[host.name] = {{"inet", host.inet}, {"inet6", host.inet6}, {"mac", host.mac}};
  }
  return {{"tier", tier_name(tier_)},
          {"capabilities", capabilities(tier_)},
          {"hosts", hosts},
          {"clock", {{"monotonic_ns", start_}, {"realtime_ns", realtime}}}};
}

json Server::socket(const json& request) {
  expect_fields(request, {"host", "family", "type", "nonblocking"});
  const auto family = request.value("family", std::string("inet"));
  const auto type = request.value("type", std::string("stream"));
  if (family != "inet" && family != "inet6") throw Refusal("usage", "no family named " + family);
  if (type != "stream" && type != "dgram") throw Refusal("usage", "no socket type named " + type);
  const int flags = SOCK_CLOEXEC | (request.value("nonblocking", false) ? SOCK_NONBLOCK : 0);
  network().inside(network().host(request.at("host").get<std::string>()), [&] {
    reply_fds_.emplace_back(
        sock::check(::socket(family == "inet" ? AF_INET : AF_INET6,
                             (type == "stream" ? SOCK_STREAM : SOCK_DGRAM) | flags, 0),
                    "socket")
            .value());
  });
  return json::object();
}

json Server::start_run(const json& request) {
  expect_fields(request, {"name", "argv", "host", "directory", "env", "stdin", "stdout_limit",
                          "stderr_limit", "limits", "files", "trace", "lines", "io_uring"});
  RunRequest wanted;
  wanted.argv = request.at("argv").get<std::vector<std::string>>();
  if (wanted.argv.empty()) throw Refusal("usage", "argv is empty");
  wanted.name = request.value("name", wanted.argv.front());
  wanted.host = request.value("host", wanted.host);
  wanted.directory = request.value("directory", std::string());
  wanted.environment = request.value("env", wanted.environment);
  wanted.files = request.value("files", wanted.files);
  wanted.stdout_limit = request.value("stdout_limit", wanted.stdout_limit);
  wanted.stderr_limit = request.value("stderr_limit", wanted.stderr_limit);
  wanted.trace = request.value("trace", false);
  wanted.lines = request.value("lines", false);
  wanted.io_uring = request.value("io_uring", false);
  const auto input = request.value("stdin", std::string("null"));
  const std::map<std::string, Stdin> kinds = {{"null", Stdin::kNull},
                                              {"closed", Stdin::kClosed},
                                              {"pipe", Stdin::kPipe},
                                              {"fd", Stdin::kFile}};
  if (!kinds.contains(input)) throw Refusal("usage", "no stdin named " + input);
  wanted.stdin_kind = kinds.at(input);
  if (wanted.stdin_kind == Stdin::kFile) {
    if (received_fds_.empty())
      throw Refusal("usage", "stdin fd: no descriptor came with the request");
    wanted.stdin_file = std::move(received_fds_.front());
  }
  const json limits = request.value("limits", json::object());
  wanted.limits.nofile = limits.value("nofile", wanted.limits.nofile);
  wanted.limits.nproc = limits.value("nproc", wanted.limits.nproc);
  wanted.limits.cpu = limits.value("cpu", wanted.limits.cpu);
  wanted.limits.fsize = limits.value("fsize", wanted.limits.fsize);
  (void)network().host(wanted.host);
  const std::uint64_t number = runs_.size() + 1;
  trace_.add(now(), "process",
             {{"run", number}, {"name", wanted.name}, {"argv", wanted.argv}, {"event", "start"}});
  wanted.number = number;
  wanted.clock = [this] { return now(); };
  runs_[number] = std::make_unique<Run>(network(), std::move(wanted), etc_hosts_, resolver_);
  starting_[number] = request["id"].get<std::uint64_t>();
  return nullptr;
}

json Server::wait(const json& request) {
  Pending entry;
  entry.id = request["id"].get<std::uint64_t>();
  entry.barrier = make_barrier(request, *this);
  entry.deadline = now() + static_cast<std::int64_t>(request.value("deadline", 10.0) * 1e9);
  pending_.push_back(std::move(entry));
  look_at_barriers();
  return nullptr;
}

json Server::cancel(const json& request) {
  expect_fields(request, {"request"});
  const auto id = request.at("request").get<std::uint64_t>();
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    if (pending_[i].id != id) continue;
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
    reply(id, {{"held", false}, {"cancelled", true}, {"seen", json::object()}});
    break;
  }
  return json::object();
}

json Server::freeze(const json& request) {
  expect_fields(request, {"run"});
  const Run& frozen = run(request.at("run").get<std::uint64_t>());
  // Again and again, because a process may have started another one before it stopped.
  const std::int64_t deadline = now() + 5'000'000'000;
  while (true) {
    frozen.signal(SIGSTOP, true);
    bool stopped = true;
    for (const Process& process : frozen.processes(Detail::kThreads)) {
      for (const Thread& thread : process.threads) {
        stopped &= thread.state == 'T' || thread.state == 'Z';
      }
    }
    if (stopped) return json::object();
    if (now() > deadline) throw Refusal("system", "the program's threads did not stop");
    ::sched_yield();
  }
}

json Server::thaw(const json& request) {
  expect_fields(request, {"run"});
  run(request.at("run").get<std::uint64_t>()).signal(SIGCONT, true);
  return json::object();
}

json Server::signal(const json& request) {
  expect_fields(request, {"run", "signal", "to"});
  const int number = signal_number(request.at("signal").get<std::string>());
  const auto to = request.value("to", std::string("main"));
  if (to != "main" && to != "all") throw Refusal("usage", "a signal goes to main or all");
  run(request.at("run").get<std::uint64_t>()).signal(number, to == "all");
  return json::object();
}

json Server::limit(const json& request) {
  expect_fields(request, {"run", "nofile"});
  const auto wanted = request.at("nofile").get<std::uint64_t>();
  return {{"previous", run(request.at("run").get<std::uint64_t>()).limit_descriptors(wanted)}};
}

json Server::list_rows(const json& request) {
  expect_fields(request, {"host", "transport"});
  const auto transport = request.value("transport", std::string("tcp"));
  const Protocol protocol = transport == "udp" ? Protocol::kUdp : Protocol::kTcp;
  const auto host = request.at("host").get<std::string>();
  const json found = rows(host, protocol);
  // A table of many rows is looked at for their number; it would fill the trace.
  constexpr std::size_t kMostNoted = 16;
  for (const json& row : found) {
    if (found.size() <= kMostNoted) note_row(host, row);
  }
  return {{"rows", found}};
}

json Server::list_processes(const json& request) {
  expect_fields(request, {"run"});
  json processes = json::array();
  for (const Process& process :
       run(request.at("run").get<std::uint64_t>()).processes(Detail::kAll)) {
    processes.push_back(to_json(process));
  }
  return {{"processes", processes}};
}

json Server::read_output(const json& request) {
  expect_fields(request, {"run", "stream", "from"});
  Run& source = run(request.at("run").get<std::uint64_t>());
  Output& stream =
      request.value("stream", std::string("stdout")) == "stderr" ? source.err() : source.out();
  (void)stream.drain();
  const std::size_t from = std::min(request.value("from", std::size_t{0}), stream.kept().size());
  json body = attach("output", std::as_bytes(std::span(stream.kept())).subspan(from));
  body["total"] = stream.total();
  body["kept"] = stream.kept().size();
  body["closed"] = stream.closed();
  return body;
}

json Server::add_rule(const json& request) {
  expect_fields(request, {"match", "action", "times", "ms", "copies", "behind", "offset", "xor"});
  std::optional<std::uint64_t> times;
  if (request.contains("times")) times = request["times"].get<std::uint64_t>();
  const Match match = parse_match(request.value("match", json::object()));
  const std::uint64_t number = need_link().add_rule(match, parse_action(request), times);
  json facts = request;
  facts.erase("id");
  facts.erase("do");
  facts["rule"] = number;
  facts["event"] = "set";
  trace_.add(now(), "rule", facts);
  return {{"rule", number}};
}

json Server::release(const json& request) {
  expect_fields(request, {"rule"});
  need_link().end_rule(request.at("rule").get<std::uint64_t>(), true);
  trace_.add(now(), "rule", {{"rule", request["rule"]}, {"event", "released"}});
  return json::object();
}

json Server::end_rule(const json& request) {
  expect_fields(request, {"rule"});
  need_link().end_rule(request.at("rule").get<std::uint64_t>(), false);
  trace_.add(now(), "rule", {{"rule", request["rule"]}, {"event", "ended"}});
  return json::object();
}

std::vector<std::byte> Server::make_reset(const json& request, const Route& route) {
  const End source = parse_end(request.at("source")),
            destination = parse_end(request.at("destination"));
  // The receiver takes a reset only at the sequence number that it expects next (RFC 5961): the
  // one it acknowledged last, or the end of what was sent to it, if that is later.
  std::optional<std::uint32_t> expected;
  const auto later = [&](std::uint32_t candidate) {
    if (!expected || static_cast<std::int32_t>(candidate - *expected) > 0) expected = candidate;
  };
  for (std::size_t i = 0; i < link_->passages().size(); ++i) {
    const Packet packet = link_->packet(i);
    if (packet.transport != Transport::kTcp) continue;
    const End from{packet.source, packet.source_port},
        to{packet.destination, packet.destination_port};
    if (from == destination && to == source && (packet.flags & flag::kAck) != 0) later(packet.ack);
    const Fate fate = link_->passages()[i].fate;
    if (from != source || to != destination || fate == Fate::kDropped || fate == Fate::kHeld)
      continue;
    const bool counted = (packet.flags & (flag::kSyn | flag::kFin)) != 0;
    later(packet.seq + static_cast<std::uint32_t>(packet.length) + (counted ? 1 : 0));
  }
  if (!expected) throw Refusal("usage", "the link has seen no such connection");
  return forge_reset(route, source, destination, *expected);
}

json Server::inject(const json& request) {
  expect_fields(request,
                {"kind", "from", "to", "source", "destination", "code", "packet", "bytes"});
  Link& wire = need_link();
  const auto from = static_cast<int>(*host_index(request.at("from").get<std::string>()));
  const auto to = static_cast<int>(*host_index(request.at("to").get<std::string>()));
  const Route route{static_cast<std::uint8_t>(from + 1), static_cast<std::uint8_t>(to + 1)};
  const auto kind = request.at("kind").get<std::string>();
  std::vector<std::byte> frame;
  if (kind == "rst") {
    frame = make_reset(request, route);
  } else if (kind == "icmp-unreachable") {
    const auto number = request.at("packet").get<std::size_t>();
    if (number == 0 || number > wire.passages().size()) throw Refusal("unknown", "no such packet");
    std::vector<std::byte> buffer;
    const auto offending = wire.capture().read(number - 1, buffer);
    const Host& sender = network().host(request["from"].get<std::string>());
    const bool v4 = wire.packet(number - 1).family == AF_INET;
    frame = forge_unreachable(route, v4 ? sender.inet : sender.inet6,
                              request.at("code").get<std::uint8_t>(), offending);
  } else if (kind == "frame") {
    frame = decode_base64(request.at("bytes").get<std::string>());
  } else {
    throw Refusal("usage", "nothing to inject is named " + kind);
  }
  return {{"packet", wire.inject(from, to, std::move(frame))}};
}

json Server::packet_facts(std::size_t index, Conversations& conversations) {
  const Packet packet = link_->packet(index);
  const Conversations::Relative relative = conversations.feed(packet);
  return to_json(packet, link_->passages()[index], index + 1, relative, *network_);
}

json Server::packets(const json& request) {
  expect_fields(request, {"from"});
  Link& wire = need_link();
  const auto first = request.value("from", std::size_t{1});
  Conversations conversations;
  json list = json::array();
  for (std::size_t i = 0; i < wire.passages().size(); ++i) {
    json facts = packet_facts(i, conversations);
    if (i + 1 >= first) list.push_back(std::move(facts));
  }
  const std::string text = list.dump();
  return attach("packets", std::as_bytes(std::span(text)));
}

json Server::capture(const json& request) {
  expect_fields(request, {});
  reply_fds_.push_back(need_link().capture().file());
  return {{"attached", true}};
}

json Server::note(const json& request) {
  expect_fields(request, {"kind", "text", "data"});
  const auto kind = request.value("kind", std::string("step"));
  if (kind != "step" && kind != "note") throw Refusal("usage", "a note is of kind step or note");
  trace_.add(now(), kind,
             {{"text", request.at("text")}, {"data", request.value("data", json::object())}});
  return json::object();
}

json Server::trace(const json& request) {
  expect_fields(request, {"after"});
  if (request.contains("after")) return trace_after(request["after"].get<std::size_t>());
  Conversations conversations;
  std::vector<Tracer::Event> unfinished;
  for (const auto& [number, run] : runs_) take_calls(*run, &unfinished);
  Trace whole = trace_.unlimited();
  for (const Tracer::Event& event : unfinished) {
    whole.add(event.time, event.kind, event.facts);
  }
  add_states(whole, link_.get(), network(),
             [this](std::uint64_t number) { return run(number).request().host; });
  json hosts = json::object();
  for (const Host& host : network().hosts()) {
    hosts[host.name] = {{"inet", host.inet}, {"inet6", host.inet6}};
  }
  const json about = {{"version", 1}, {"tier", tier_name(tier_)}, {"hosts", hosts}};
  const json header = {{"n", 0},
                       {"time", 0},
                       {"kind", "note"},
                       {"source", "observed"},
                       {"note", {{"text", "trace"}, {"data", about}}}};
  const std::string text = header.dump() + "\n" + whole.lines([&](std::size_t index) {
    return packet_facts(index, conversations);
  });
  return attach("trace", std::as_bytes(std::span(text)));
}

// What has become known since record `first`, while the run goes on.
json Server::trace_after(std::size_t first) {
  for (const auto& [number, run] : runs_) take_calls(*run);
  const std::vector<Trace::Record>& records = trace_.records();
  first = std::min(first, records.size());
  const std::size_t last = std::min(records.size(), first + kMostRecords);
  if (first < next_followed_) {
    followed_ = {};
    next_followed_ = 0;
  }
  // The numbers of a connection count from its first packet, whether that was asked for or not.
  for (; next_followed_ < first; ++next_followed_) {
    const auto& packet = records[next_followed_].packet;
    if (packet) (void)followed_.feed(link_->packet(*packet));
  }
  const std::string text =
      trace_.lines(first, last, [&](std::size_t index) { return packet_facts(index, followed_); });
  next_followed_ = last;
  json body = attach("records", std::as_bytes(std::span(text)));
  body["next"] = last;
  body["known"] = records.size();
  return body;
}

json Server::perturb(const json& request) {
  expect_fields(request, {"run", "calls", "cap", "error", "first", "times"});
  Tracer* tracer = run(request.at("run").get<std::uint64_t>()).tracer();
  if (tracer == nullptr) throw Refusal("usage", "only the calls of a traced run can be changed");
  if (request.contains("cap") == request.contains("error")) {
    throw Refusal("usage", "perturb takes either cap or error");
  }
  Perturbation wanted;
  wanted.calls = request.at("calls").get<std::set<std::string>>();
  wanted.first = request.value("first", wanted.first);
  wanted.times = request.value("times", wanted.times);
  if (request.contains("cap")) {
    wanted.bytes = request["cap"].get<std::size_t>();
    if (wanted.bytes == 0) throw Refusal("usage", "a call moves at least one byte");
  } else {
    wanted.act = Perturbation::Act::kError;
    wanted.error = legal_error(wanted.calls, request["error"].get<std::string>());
  }
  tracer->perturb(std::move(wanted));
  return json::object();
}

json Server::counts() {
  json body = {{"frames", 0},
               {"forwarded", 0},
               {"dropped_by_rule", 0},
               {"held", 0},
               {"lost", 0},
               {"lost_where", json::object()},
               {"capture_truncated", false},
               {"not_captured", 0},
               {"not_traced", trace_.left_out()}};
  if (!link_) return body;
  const LinkCounts& counts = link_->counts();
  std::uint64_t lost = 0;
  for (const auto& [where, count] : link_->losses()) {
    lost += count;
    if (count != 0) body["lost_where"][where] = count;
  }
  body["frames"] = counts.frames;
  body["forwarded"] = counts.forwarded;
  body["dropped_by_rule"] = counts.dropped_by_rule;
  body["held"] = link_->held();
  body["lost"] = lost;
  body["capture_truncated"] = link_->capture().truncated();
  body["not_captured"] = counts.frames - link_->capture().count();
  return body;
}

json Server::stats(const json& request) {
  expect_fields(request, {});
  return counts();
}

json Server::end(const json& request) {
  expect_fields(request, {});
  json body = counts();
  body["left"] = json::object();
  for (const auto& [number, run] : runs_) {
    std::size_t left = 0;
    for (const Process& process : run->processes(Detail::kIds))
      left += process.pid != run->pid() ? 1U : 0U;
    body["left"][std::to_string(number)] = run->phase() == Phase::kEnded ? left : 0;
  }
  kill_runs();
  done_ = true;
  return body;
}

}  // namespace

int serve(int control_fd, Tier tier) {
  ::prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);  // barriers look again after fractions of a millisecond
  ::signal(SIGPIPE, SIG_IGN);
  Server server(control_fd, tier);
  return server.serve();
}

}  // namespace testbed
