// trace.h - everything that happened in one run, in one order, on one clock.
//
// Records are appended as they become known, as text; a packet is only its number in the capture
// until somebody wants to read it. Bounded: two thirds of its room are for what comes in bulk
// (data, reading, writing, waiting), the last third for all else; a record says that something
// found none. Not thread-safe.

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
  using PacketFacts = std::function<nlohmann::json(std::size_t)>;

  enum class Source { kObserved, kInferred };
  struct Record {
    std::int64_t time;
    std::string kind;
    std::string facts;                  // JSON
    std::optional<std::size_t> packet;  // its place in the capture; the facts are made later
    Source source = Source::kObserved;
  };

  explicit Trace(std::size_t limit = kMostRecords) : limit_(limit) {}

  // A fact of `kind`: call, process, rule, row, state, step, note.
  void add(std::int64_t time, const std::string& kind, const nlohmann::json& facts,
           Source source = Source::kObserved);
  // Packet `index` (from 0) of the capture; `bulk`: one of many like it.
  void packet(std::int64_t time, std::size_t index, bool bulk);

  // The same trace without a limit: for what is concluded from it.
  [[nodiscard]] Trace unlimited() const;

  // In the order in which they became known.
  [[nodiscard]] const std::vector<Record>& records() const noexcept { return records_; }
  // How many found no room.
  [[nodiscard]] std::uint64_t left_out() const noexcept { return left_out_; }

  // The trace as JSON lines, in order of time; `packet_facts` gives the facts of a packet, asked in
  // order.
  [[nodiscard]] std::string lines(const PacketFacts& packet_facts) const;
  // Records `first` to `last` (one past), from 0, in the order in which they became known.
  [[nodiscard]] std::string lines(std::size_t first, std::size_t last,
                                  const PacketFacts& packet_facts) const;

 private:
  bool room(std::int64_t time, bool bulk);
  std::size_t limit_;
  std::uint64_t left_out_ = 0;
  std::vector<Record> records_;
};

}  // namespace testbed
