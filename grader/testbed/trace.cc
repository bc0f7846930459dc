#include "trace.h"

#include <utility>

namespace testbed {

using nlohmann::json;

bool Trace::room(std::int64_t time) {
  if (records_.size() < kMostRecords) return true;
  if (records_.size() == kMostRecords) {
    records_.push_back(
        {time, "note", {{"text", "the trace is full: what follows is not in it"}}, {}});
  }
  return false;
}

void Trace::add(std::int64_t time, const std::string& kind, json facts) {
  if (room(time)) records_.push_back({time, kind, std::move(facts), {}});
}

void Trace::packet(std::int64_t time, std::size_t index) {
  if (room(time)) records_.push_back({time, "packet", {}, index});
}

std::string Trace::lines(const std::function<json(std::size_t)>& packet_facts) const {
  std::string text;
  for (std::size_t i = 0; i < records_.size(); ++i) {
    const Record& record = records_[i];
    const json line = {{"n", i + 1},
                       {"time", record.time},
                       {"kind", record.kind},
                       {"source", "observed"},
                       {record.kind, record.packet ? packet_facts(*record.packet) : record.facts}};
    // What a program wrote may not be UTF-8: such bytes are replaced, never refused.
    text += line.dump(-1, ' ', false, json::error_handler_t::replace);
    text += '\n';
  }
  return text;
}

}  // namespace testbed
