#include "probe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <exception>
#include <fstream>
#include <string>

#include "link.h"
#include "refusal.h"
#include "run.h"
#include "sock/error.h"
#include "socket_table.h"

namespace testbed {
namespace {

using nlohmann::json;

constexpr int kPatience = 10'000;  // milliseconds for a whole trial

// Opens a testbed of the tier and runs `true` in its sandbox. Throws what was refused.
void try_tier(Tier tier) {
  Network network(tier, {"target", "peer"});
  std::unique_ptr<Link> link;
  if (network.has_link()) {
    link = std::make_unique<Link>(
        network, [] { return std::int64_t{0}; }, 0, 1 << 20, [](std::size_t) {});
  }
  network.up();
  SocketTable table(network, network.hosts().front());
  (void)table.rows(Protocol::kTcp);
  RunRequest request;
  request.argv = {"true"};
  Run run(network, std::move(request), "", "");
  while (run.phase() == Phase::kStarting || run.phase() == Phase::kRunning) {
    pollfd wait{run.channel(), POLLIN, 0};
    if (::poll(&wait, 1, kPatience) <= 0)
      throw Refusal("system", "the sandbox did not start in time");
    (void)run.receive();
  }
  (void)run.err().drain();
  if (run.phase() == Phase::kEnded && run.status() == json{{"kind", "exit"}, {"code", 0}}) return;
  const std::string said = run.err().kept();
  throw Refusal("system", said.empty() ? "the sandbox could not be made (is bubblewrap installed?)"
                                       : said.substr(0, said.find('\n')));
}

// Runs `trial` in a child, which may enter namespaces it cannot leave. Empty: it worked.
std::string refused(void (*trial)(Tier), Tier tier) {
  std::array<int, 2> ends{};
  (void)sock::check(::pipe2(ends.data(), O_CLOEXEC), "pipe2").value();
  const sock::Fd read_end(ends[0]);
  sock::Fd write_end(ends[1]);
  const pid_t child = sock::check(::fork(), "fork").value();
  if (child == 0) {
    std::string message;
    try {
      trial(tier);
    } catch (const std::exception& error) {
      message = error.what();
    }
    (void)!::write(write_end.get(), message.data(), message.size());
    ::_exit(message.empty() ? 0 : 1);
  }
  write_end.reset();
  std::string message;
  std::array<char, 512> buffer{};
  for (ssize_t size = 0; (size = ::read(read_end.get(), buffer.data(), buffer.size())) > 0;) {
    message.append(buffer.data(), static_cast<std::size_t>(size));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (message.empty() && status != 0) message = "the trial itself died";
  return message;
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string namespace_remedy() {
  if (first_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    return "AppArmor keeps ordinary users out of user namespaces (Ubuntu 23.10 and later). Run as "
           "root, or: "
           "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
  }
  if (first_line("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
    return "sudo sysctl -w kernel.unprivileged_userns_clone=1";
  }
  if (first_line("/proc/sys/user/max_user_namespaces") == "0") {
    return "sudo sysctl -w user.max_user_namespaces=15000";
  }
  return "run as root, or where user namespaces are allowed (in a container: --privileged)";
}

bool can_trace() { return first_line("/proc/sys/kernel/yama/ptrace_scope") != "3"; }
bool has_ipv6() { return ::access("/proc/sys/net/ipv6", F_OK) == 0; }

json capability(const char* name, bool have, const std::string& because,
                const std::string& remedy) {
  return {{"name", name}, {"have", have}, {"because", because}, {"remedy", have ? "" : remedy}};
}

}  // namespace

std::vector<std::string> capabilities(Tier tier) {
  std::vector<std::string> words = {"owner"};
  if (tier != Tier::kLoopback) words.insert(words.end(), {"link", "sandbox", "names"});
  if (tier == Tier::kRoot) words.emplace_back("uid");
  if (has_ipv6()) words.emplace_back("inet6");
  if (can_trace()) words.emplace_back("ptrace");
  return words;
}

Tier best_tier() {
  if (::geteuid() == 0 && refused(try_tier, Tier::kRoot).empty()) return Tier::kRoot;
  if (refused(try_tier, Tier::kUser).empty()) return Tier::kUser;
  return Tier::kLoopback;
}

json probe() {
  json tiers = json::object();
  Tier best = Tier::kLoopback;
  std::string why_no_link;
  for (const Tier tier : {Tier::kUser, Tier::kRoot}) {
    const bool possible = tier != Tier::kRoot || ::geteuid() == 0;
    const std::string because = possible ? refused(try_tier, tier) : "not root";
    tiers[tier_name(tier)] = {{"works", because.empty()}, {"because", because}};
    if (because.empty()) best = tier;
    if (tier == Tier::kUser || possible) why_no_link = because;
  }
  const std::string loopback = refused(try_tier, Tier::kLoopback);
  tiers["T0"] = {{"works", loopback.empty()}, {"because", loopback}};
  const bool link = best != Tier::kLoopback;
  const std::string because = link ? "" : why_no_link;
  const std::string remedy = namespace_remedy();
  return {{"tier", tier_name(best)},
          {"tiers", tiers},
          {"capabilities",
           {capability("link", link, because, remedy), capability("sandbox", link, because, remedy),
            capability("names", link, because, remedy),
            capability("owner", loopback.empty(), loopback, "proc must be mounted on /proc"),
            capability("inet6", has_ipv6(), has_ipv6() ? "" : "the kernel has no IPv6",
                       "load the ipv6 module"),
            capability("uid", best == Tier::kRoot, best == Tier::kRoot ? "" : "needs root",
                       "run as root"),
            capability("ptrace", can_trace(), can_trace() ? "" : "kernel.yama.ptrace_scope is 3",
                       "sudo sysctl -w kernel.yama.ptrace_scope=1")}}};
}

}  // namespace testbed
