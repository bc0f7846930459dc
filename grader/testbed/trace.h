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

  // An observed fact of `kind`: process, rule, row, step, note.
  void add(std::int64_t time, const std::string& kind, nlohmann::json facts);
  // Packet `index` (from 0) of the capture.
  void packet(std::int64_t time, std::size_t index);

  // The trace as JSON lines; `packet_facts` gives the facts of a packet, asked in order.
  [[nodiscard]] std::string lines(
      const std::function<nlohmann::json(std::size_t)>& packet_facts) const;

 private:
  struct Record {
    std::int64_t time;
    std::string kind;
    nlohmann::json facts;
    std::optional<std::size_t> packet;
  };
  bool room(std::int64_t time);
  std::vector<Record> records_;
};

}  // namespace testbed
