#include "trace.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace testbed {

using nlohmann::json;

bool Trace::room(std::int64_t time) {
  if (records_.size() < kMostRecords) return true;
  if (records_.size() == kMostRecords) {
    records_.push_back({time,
                        "note",
                        {{"text", "the trace is full: what follows is not in it"}},
                        {},
                        Source::kObserved});
  }
  return false;
}

void Trace::add(std::int64_t time, const std::string& kind, json facts, Source source) {
  if (room(time)) records_.push_back({time, kind, std::move(facts), {}, source});
}

void Trace::packet(std::int64_t time, std::size_t index) {
  if (room(time)) records_.push_back({time, "packet", {}, index, Source::kObserved});
}

std::string Trace::lines(const std::function<json(std::size_t)>& packet_facts) const {
  // Facts become known in another order than that in which they happened.
  std::vector<std::size_t> order(records_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto place = [&](std::size_t i) {
    const std::string& kind = records_[i].kind;
    const int rank = kind == "call" ? 0 : kind == "packet" ? 1 : kind == "state" ? 2 : 3;
    return std::pair(records_[i].time, rank);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return place(a) < place(b); });
  std::string text;
  for (std::size_t i = 0; i < records_.size(); ++i) {
    const Record& record = records_[order[i]];
    const json line = {{"n", i + 1},
                       {"time", record.time},
                       {"kind", record.kind},
                       {"source", record.source == Source::kObserved ? "observed" : "inferred"},
                       {record.kind, record.packet ? packet_facts(*record.packet) : record.facts}};
    // What a program wrote may not be UTF-8: such bytes are replaced, never refused.
    text += line.dump(-1, ' ', false, json::error_handler_t::replace);
    text += '\n';
  }
  return text;
}

}  // namespace testbed
