#include "history.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "facts.h"
#include "states.h"

namespace testbed {
namespace {

using nlohmann::json;

struct Change {
  std::int64_t time = 0;
  std::string host;
  json local, remote, from, because;
  std::string to;
};

// A row of a socket table.
struct Seen {
  std::int64_t time = 0;
  json row;
};

std::vector<Transition> transitions_of(const Link& link) {
  // Frames that were held back arrive later than others that were sent after them.
  struct Happening {
    std::int64_t time;
    bool delivered;
    std::size_t index;
  };
  std::vector<Happening> happenings;
  const std::vector<Passage>& passages = link.passages();
  for (std::size_t i = 0; i < passages.size(); ++i) {
    if (passages[i].fate != Fate::kInjected) happenings.push_back({passages[i].time, false, i});
    if (passages[i].delivered) happenings.push_back({*passages[i].delivered, true, i});
  }
  std::stable_sort(happenings.begin(), happenings.end(),
                   [](const Happening& a, const Happening& b) { return a.time < b.time; });
  States states;
  for (const Happening& happening : happenings) {
    const Passage& passage = passages[happening.index];
    const Packet packet = link.packet(happening.index);
    const int host = happening.delivered ? passage.to : passage.from;
    if (packet.transport != Transport::kTcp || host < 0) continue;
    const States::Event event{happening.time, happening.index + 1, host};
    if (happening.delivered) {
      states.delivered(event, packet);
    } else {
      states.sent(event, packet);
    }
  }
  return states.finish();
}

Change change_of(const Transition& transition, const Network& network) {
  return {transition.time,
          network.hosts()[static_cast<std::size_t>(transition.host)].name,
          to_json(transition.local),
          to_json(transition.remote),
          transition.from ? json(state_name(*transition.from)) : json(),
          "packet " + std::to_string(transition.packet),
          state_name(transition.to)};
}

void add_listener(std::vector<Change>& changes, std::int64_t time, const std::string& host,
                  const json& local, const char* because) {
  const bool known = std::any_of(changes.begin(), changes.end(), [&](const Change& change) {
    return change.to == "LISTEN" && change.host == host && change.local == local;
  });
  if (known || !local.is_array()) return;
  const bool is_inet6 = local[0].get<std::string>().find(':') != std::string::npos;
  const json nobody = json::array({is_inet6 ? "::" : "0.0.0.0", 0});
  changes.push_back({time, host, local, nobody, nullptr, because, "LISTEN"});
}

// A listener begins with listen(2), or, where calls are not traced, with the first sight of it.
void add_listeners(const Trace& trace, const std::vector<Seen>& rows, std::vector<Change>& changes,
                   const std::function<std::string(std::uint64_t)>& host_of_run) {
  for (const Trace::Record& record : trace.records()) {
    // Most calls are others: they need not be read for that.
    if (record.kind != "call" || record.facts.find("\"listen\"") == std::string::npos) continue;
    const json facts = json::parse(record.facts);
    if (facts["name"] == "listen" && facts["result"] == 0 && facts["socket"].is_object()) {
      add_listener(changes, facts["ended"].get<std::int64_t>(),
                   host_of_run(facts["run"].get<std::uint64_t>()), facts["socket"]["local"],
                   "call");
    }
  }
  for (const Seen& seen : rows) {
    if (seen.row["state"] != "LISTEN") continue;
    add_listener(changes, seen.time, seen.row["host"].get<std::string>(), seen.row["local"], "row");
  }
}

// Whether a row showed this state between the change and the next one of the socket.
bool was_seen(const std::vector<Seen>& rows, const Change& change, std::int64_t until) {
  if (change.because == "row") return true;
  return std::any_of(rows.begin(), rows.end(), [&](const Seen& seen) {
    const json& row = seen.row;
    return seen.time >= change.time && seen.time < until && row["state"] == change.to &&
           row["host"] == change.host && row["local"] == change.local &&
           row["remote"] == change.remote;
  });
}

}  // namespace

void add_states(Trace& trace, const Link* link, const Network& network,
                const std::function<std::string(std::uint64_t)>& host_of_run) {
  std::vector<Change> changes;
  if (link != nullptr) {
    for (const Transition& transition : transitions_of(*link)) {
      changes.push_back(change_of(transition, network));
    }
  }
  std::vector<Seen> rows;
  for (const Trace::Record& record : trace.records()) {
    if (record.kind == "row") rows.push_back({record.time, json::parse(record.facts)});
  }
  add_listeners(trace, rows, changes, host_of_run);
  std::vector<Trace::Source> sources(changes.size(), Trace::Source::kInferred);
  std::map<std::string, std::int64_t> next;  // a socket's next change, seen from the end
  for (std::size_t i = changes.size(); i-- > 0;) {
    const Change& change = changes[i];
    const std::string socket = change.host + change.local.dump() + change.remote.dump();
    const auto [entry, is_last] =
        next.try_emplace(socket, std::numeric_limits<std::int64_t>::max());
    if (was_seen(rows, change, entry->second)) sources[i] = Trace::Source::kObserved;
    entry->second = change.time;
  }
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const Change& change = changes[i];
    trace.add(change.time, "state",
              {{"host", change.host},
               {"local", change.local},
               {"remote", change.remote},
               {"from", change.from},
               {"to", change.to},
               {"because", change.because}},
              sources[i]);
  }
}

}  // namespace testbed
