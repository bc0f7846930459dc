#include "barrier.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "facts.h"
#include "refusal.h"

namespace testbed {
namespace {

using nlohmann::json;

Protocol parse_protocol(const json& request) {
  const auto name = request.value("transport", std::string("tcp"));
  if (name == "tcp") return Protocol::kTcp;
  if (name == "udp") return Protocol::kUdp;
  throw Refusal("usage", "no socket table of transport " + name);
}

bool has_ended(const Run& run) {
  return run.phase() == Phase::kEnded || run.phase() == Phase::kFailed;
}

json blocked_threads(const std::vector<Process>& processes) {
  json blocked = json::array();
  for (const Process& process : processes) {
    for (const Thread& thread : process.threads) {
      if (thread.call.empty()) continue;
      blocked.push_back({{"pid", process.pid},
                         {"tid", thread.tid},
                         {"call", thread.call},
                         {"timed", thread.timed},
                         {"command", process.command}});
    }
  }
  return blocked;
}

bool is_wildcard(const std::string& address) { return address == "0.0.0.0" || address == "::"; }

Barrier listening(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  const auto port = request.at("port").get<std::uint16_t>();
  const auto address = request.value("address", std::string());
  const Protocol protocol = parse_protocol(request);
  const std::string state = protocol == Protocol::kTcp ? "LISTEN" : "CLOSE";
  return [&facts, number, port, address, protocol, state] {
    Look look;
    Run& run = facts.run(number);
    for (json& row : facts.rows(run.request().host, protocol)) {
      if (row["owners"].empty()) continue;
      const auto local = row["local"][0].get<std::string>();
      const bool there = address.empty() || local == address || is_wildcard(local);
      look.held |= row["state"] == state && row["local"][1] == port && there;
      look.seen["rows"].push_back(std::move(row));
    }
    look.seen["status"] = run.status();
    look.ended = has_ended(run);
    return look;
  };
}

Barrier exited(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  return [&facts, number] {
    Look look;
    Run& run = facts.run(number);
    look.held = has_ended(run);
    look.seen["status"] = run.status();
    if (!look.held) look.seen["blocked"] = blocked_threads(run.processes(Detail::kThreads));
    return look;
  };
}

// The barriers about one connection as `host` sees it.
Barrier connection(const json& request, Facts& facts,
                   std::function<bool(const std::optional<Row>&)> holds) {
  const auto host = request.at("host").get<std::string>();
  (void)facts.network().host(host);
  const End local = parse_end(request.at("local")), remote = parse_end(request.at("remote"));
  return [&facts, host, local, remote, holds = std::move(holds)] {
    Look look;
    const std::optional<Row> row = facts.table(host).find(local, remote);
    look.held = holds(row);
    look.seen["state"] = row ? row->state : "NONE";
    look.seen["row"] = row ? to_json(*row, {}) : json();
    look.seen["host"] = host;
    return look;
  };
}

Barrier consumed(const json& request, Facts& facts) {
  return connection(request, facts, [](const std::optional<Row>& row) {
    if (!row) return true;
    // A FIN that was received but not yet read counts as one byte of the queue (pitfalls K6).
    const bool fin_pending = row->state == "CLOSE_WAIT" || row->state == "LAST_ACK" ||
                             row->state == "CLOSING" || row->state == "TIME_WAIT";
    return row->rqueue == 0 || (row->rqueue == 1 && fin_pending);
  });
}

Barrier delivered(const json& request, Facts& facts) {
  return connection(request, facts,
                    [](const std::optional<Row>& row) { return !row || row->wqueue == 0; });
}

Barrier state(const json& request, Facts& facts) {
  const auto wanted = request.at("in").get<std::vector<std::string>>();
  return connection(request, facts, [wanted](const std::optional<Row>& row) {
    return std::find(wanted.begin(), wanted.end(), row ? row->state : "NONE") != wanted.end();
  });
}

Barrier row_count(const json& request, Facts& facts) {
  const auto host = request.at("host").get<std::string>();
  const Protocol protocol = parse_protocol(request);
  const auto wanted = request.value("state", std::string());
  const auto port = request.value("local_port", 0U);
  const auto least = request.value("at_least", std::uint64_t{0});
  const auto most = request.value("at_most", ~std::uint64_t{0});
  return [=, &facts] {
    Look look;
    std::uint64_t count = 0;
    std::map<std::string, std::uint64_t> states;
    for (const Row& row : facts.table(host).rows(protocol)) {
      if (port != 0 && row.local.port != port) continue;
      ++states[row.state];
      if (wanted.empty() || row.state == wanted) ++count;
    }
    look.held = least <= count && count <= most;
    look.seen = {{"count", count}, {"states", states}};
    return look;
  };
}

Barrier blocked(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  const auto calls = request.value("calls", std::vector<std::string>());
  return [&facts, number, calls] {
    Look look;
    Run& run = facts.run(number);
    const std::vector<Process> processes = run.processes(Detail::kThreads);
    for (const Process& process : processes) {
      for (const Thread& thread : process.threads) {
        const bool wanted = std::find(calls.begin(), calls.end(), thread.call) != calls.end();
        look.held |= !thread.call.empty() && (calls.empty() || wanted);
      }
    }
    look.seen["blocked"] = blocked_threads(processes);
    look.ended = has_ended(run);
    return look;
  };
}

// One picture of everything that could still move.
struct Stillness {
  using ThreadFact = std::tuple<pid_t, char, std::uint64_t, std::uint64_t>;
  std::vector<ThreadFact> threads;
  std::vector<std::string> rows;
  std::uint64_t frames = 0;
  std::uint64_t output = 0;
  friend bool operator==(const Stillness&, const Stillness&) = default;
};

// Takes pictures of a run until two, far enough apart, are the same.
class Quiescence {
 public:
  Quiescence(Facts& facts, std::uint64_t run, std::int64_t settle, bool untimed)
      : facts_(facts), run_(run), settle_(settle), untimed_(untimed) {}

  Look look() {
    Look look;
    Run& run = facts_.run(run_);
    const std::vector<Process> processes = run.processes(Detail::kThreads);
    std::uint64_t cpu = 0;
    for (const Process& process : processes) cpu += process.cpu_ns;
    if (!first_cpu_) first_cpu_ = cpu;
    const std::int64_t time = facts_.now();
    const auto [picture, moving] = take(run, processes);
    if (!moving.empty() || !last_ || *last_ != picture) {
      since_ = time;
      why_ = moving.empty() ? difference(picture) : moving;
      last_ = picture;
    }
    look.held = moving.empty() && time - since_ >= settle_;
    look.seen = {{"blocked", blocked_threads(processes)},
                 {"status", run.status()},
                 {"cpu_ns", cpu > *first_cpu_ ? cpu - *first_cpu_ : 0}};
    if (!look.held) look.seen["moving"] = why_;
    return look;
  }

 private:
  // The picture, and what in it is moving at this moment ("" if nothing).
  std::pair<Stillness, std::string> take(const Run& run, const std::vector<Process>& processes) {
    Stillness picture;
    std::string moving;
    std::set<std::uint64_t> sockets;
    for (const Process& process : processes) {
      for (const Thread& thread : process.threads) {
        picture.threads.emplace_back(thread.tid, thread.state, thread.switches, thread.cpu_ns);
        if (thread.state == 'R' || thread.state == 'D') moving = "a thread runs";
        if (untimed_ && thread.timed)
          moving = "a thread sleeps in " + thread.call + " with a time-out";
      }
    }
    std::sort(picture.threads.begin(), picture.threads.end());
    // A program that has ended moves until its end has been reported.
    const bool lives = std::any_of(processes.begin(), processes.end(), [&](const Process& process) {
      return process.pid == run.pid() && process.state != 'Z';
    });
    if (run.phase() == Phase::kRunning && !lives) moving = "the program is ending";
    picture.output = facts_.output_total();
    Link* link = facts_.link();
    if (link != nullptr) picture.frames = link->counts().moving;
    // Tables are costly to list: only once everything else has stayed as it was.
    const bool same = last_ && last_->threads == picture.threads &&
                      last_->frames == picture.frames && last_->output == picture.output;
    if (!moving.empty() || !same) return {picture, moving};
    if (link != nullptr) {
      for (const Host& host : facts_.network().hosts()) add_rows(host.name, picture, moving);
    } else {
      add_own_rows(run.request().host, picture, moving);
    }
    return {picture, moving};
  }

  static void add_row(const std::string& host, const Row& row, Stillness& picture,
                      std::string& moving) {
    constexpr std::uint8_t kRetransmit = 1;
    if (row.timer == kRetransmit) moving = "a retransmit timer runs";
    picture.rows.push_back(host + " " + row.local.address + " " + std::to_string(row.local.port) +
                           " " + row.remote.address + " " + std::to_string(row.remote.port) + " " +
                           row.state + " " + std::to_string(row.rqueue) + " " +
                           std::to_string(row.wqueue));
  }

  void add_rows(const std::string& host, Stillness& picture, std::string& moving) {
    for (const Row& row : facts_.table(host).rows(Protocol::kTcp))
      add_row(host, row, picture, moving);
    for (const Row& row : facts_.table(host).rows(Protocol::kUdp))
      add_row(host, row, picture, moving);
    std::sort(picture.rows.begin(), picture.rows.end());
  }

  // On the machine's own loopback other programs' sockets are none of our business.
  void add_own_rows(const std::string& host, Stillness& picture, std::string& moving) {
    for (const json& row : facts_.rows(host, Protocol::kTcp)) {
      if (row["owners"].empty()) continue;
      if (row["timer"] == "retransmit") moving = "a retransmit timer runs";
      picture.rows.push_back(row["local"].dump() + row["remote"].dump() + row["state"].dump() +
                             row["rqueue"].dump() + row["wqueue"].dump());
    }
    std::sort(picture.rows.begin(), picture.rows.end());
  }

  std::string difference(const Stillness& picture) const {
    if (!last_) return "first look";
    if (last_->frames != picture.frames) return "frames passed";
    if (last_->threads != picture.threads) return "a thread ran";
    if (last_->output != picture.output) return "output came";
    return "a socket changed";
  }

  Facts& facts_;
  std::uint64_t run_;
  std::int64_t settle_;
  bool untimed_;
  std::optional<Stillness> last_;
  std::optional<std::uint64_t> first_cpu_;
  std::int64_t since_ = 0;
  std::string why_;
};

Barrier quiescent(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  const std::int64_t settle = request.value("settle_ms", std::int64_t{20}) * 1'000'000;
  const auto quiescence =
      std::make_shared<Quiescence>(facts, number, settle, request.value("untimed", false));
  return [quiescence] { return quiescence->look(); };
}

Barrier output(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  const bool errors = request.value("stream", std::string("stdout")) == "stderr";
  const json bytes = request.value("bytes", json()), lines = request.value("lines", json());
  const json text = request.value("text", json());
  return [=, &facts] {
    Look look;
    Run& run = facts.run(number);
    const Output& stream = errors ? run.err() : run.out();
    const auto newlines =
        static_cast<std::uint64_t>(std::count(stream.kept().begin(), stream.kept().end(), '\n'));
    look.held = stream.closed();
    if (!bytes.is_null()) look.held = stream.total() >= bytes.get<std::uint64_t>();
    if (!lines.is_null()) look.held = newlines >= lines.get<std::uint64_t>();
    if (!text.is_null())
      look.held = stream.kept().find(text.get<std::string>()) != std::string::npos;
    look.ended = stream.closed();
    look.seen = {{"total", stream.total()},
                 {"lines", newlines},
                 {"closed", stream.closed()},
                 {"status", run.status()}};
    return look;
  };
}

Barrier frames(const json& request, Facts& facts) {
  Link* link = facts.link();
  if (link == nullptr) throw Refusal("usage", "this tier has no link");
  const Match match = parse_match(request.at("match"));
  const auto least = request.value("at_least", std::uint64_t{1});
  return [link, match, least, next = std::size_t{0}, count = std::uint64_t{0}]() mutable {
    count += link->count_matches(match, next);
    next = link->passages().size();
    Look look;
    look.held = count >= least;
    look.seen = {{"count", count}};
    return look;
  };
}

struct Sum {
  std::uint64_t fds = 0, sockets = 0, threads = 0, processes = 0, zombies = 0, vm_size = 0,
                vm_rss = 0, cpu_ns = 0;
};

Sum sum_of(const std::vector<Process>& processes) {
  Sum sum;
  for (const Process& process : processes) {
    if (process.state == 'Z') {
      ++sum.zombies;
      continue;
    }
    ++sum.processes;
    sum.fds += process.fds;
    sum.sockets += process.sockets.size();
    sum.threads += process.threads.size();
    sum.vm_size += process.vm_size;
    sum.vm_rss += process.vm_rss;
    sum.cpu_ns += process.cpu_ns;
  }
  return sum;
}

Barrier process(const json& request, Facts& facts) {
  const auto number = request.at("run").get<std::uint64_t>();
  return [&facts, number, request] {
    const Sum sum = sum_of(facts.run(number).processes(Detail::kAll));
    Look look;
    look.held = true;
    const std::pair<const char*, std::uint64_t> entries[] = {{"fds", sum.fds},
                                                             {"sockets", sum.sockets},
                                                             {"threads", sum.threads},
                                                             {"processes", sum.processes},
                                                             {"zombies", sum.zombies}};
    for (const auto& [name, value] : entries) {
      const auto most = request.value(std::string(name) + "_at_most", ~std::uint64_t{0});
      const auto least = request.value(std::string(name) + "_at_least", std::uint64_t{0});
      look.held &= least <= value && value <= most;
      look.seen["process"][name] = value;
    }
    look.seen["process"]["vm_size"] = sum.vm_size;
    look.seen["process"]["vm_rss"] = sum.vm_rss;
    look.seen["process"]["cpu_ns"] = sum.cpu_ns;
    look.ended = has_ended(facts.run(number));
    return look;
  };
}

using Maker = Barrier (*)(const json&, Facts&);
const std::map<std::string, Maker> kMakers = {
    {"listening", listening}, {"exited", exited},       {"consumed", consumed},
    {"delivered", delivered}, {"state", state},         {"row-count", row_count},
    {"blocked", blocked},     {"quiescent", quiescent}, {"output", output},
    {"frames", frames},       {"process", process}};

}  // namespace

Barrier make_barrier(const json& request, Facts& facts) {
  const auto kind = request.at("for").get<std::string>();
  const auto maker = kMakers.find(kind);
  if (maker == kMakers.end()) throw Refusal("usage", "no barrier named " + kind);
  return maker->second(request, facts);
}

}  // namespace testbed
