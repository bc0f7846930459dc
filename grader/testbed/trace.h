// trace.h - everything that happened in one run, in one order, on one clock.
//
// Records are appended as they become known; a packet is only its number in the capture until
// lines() decodes it. Bounded: past `kMostRecords` nothing is added and one last record says so.
// Not thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace testbed {

class Trace {
 public:
  static constexpr std::size_t kMostRecords = 500'000;

  enum class Source { kObserved, kInferred };
  struct Record {
    std::int64_t time;
    std::string kind;
    nlohmann::json facts;
    std::optional<std::size_t> packet;  // its place in the capture; the facts are made later
    Source source = Source::kObserved;
  };

  // A fact of `kind`: call, process, rule, row, state, step, note.
  void add(std::int64_t time, const std::string& kind, nlohmann::json facts,
           Source source = Source::kObserved);
  // Packet `index` (from 0) of the capture.
  void packet(std::int64_t time, std::size_t index);

  // In the order in which they became known.
  [[nodiscard]] const std::vector<Record>& records() const noexcept { return records_; }

  // The trace as JSON lines, in order of time; `packet_facts` gives the facts of a packet, asked in
  // order.
  [[nodiscard]] std::string lines(
      const std::function<nlohmann::json(std::size_t)>& packet_facts) const;

 private:
  bool room(std::int64_t time);
  std::vector<Record> records_;
};

}  // namespace testbed
