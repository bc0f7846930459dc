// rules.h - which frames a rule of the link is about, and what it does with them.
//
// Match and Action are the `match` and `action` objects of PROTOCOL.md. A rule acts by what a frame
// is and by its number among those that fit, never by chance or time. Not thread-safe.

#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "decode.h"

namespace testbed {

struct Match {
  std::string from, to;  // host names; empty: any
  std::optional<Transport> transport;
  std::uint16_t flags = 0, without = 0;
  std::optional<std::size_t> min_length, max_length;
  std::optional<std::uint16_t> source_port, destination_port;
  std::optional<std::uint64_t> nth;
  int family = 0;

  // Whether the packet fits, `nth` aside. `destination_host` is empty for a broadcast frame.
  [[nodiscard]] bool fits(const Packet& packet, const std::string& source_host,
                          const std::string& destination_host) const;
};
// Throws Refusal("usage") naming the field it does not know or cannot take.
Match parse_match(const nlohmann::json& object);

enum class Act { kDrop, kHold, kDelay, kDuplicate, kReorder, kCorrupt };

struct Action {
  Act act = Act::kDrop;
  std::int64_t delay = 0;    // nanoseconds
  std::uint64_t copies = 1;  // duplicate
  std::uint64_t behind = 1;  // reorder: how many later frames go first
  std::size_t offset = 0;    // corrupt: of the payload byte
  std::uint8_t mask = 0xff;  // corrupt: exclusive or
};
Action parse_action(const nlohmann::json& request);
const char* act_name(Act act);

struct Rule {
  std::uint64_t number = 0;
  Match match;
  Action action;
  std::optional<std::uint64_t> times;  // how many frames it still acts on; absent: all
  std::uint64_t seen = 0;              // frames that fitted

  // Counts a fitting packet and tells whether the rule acts on it.
  bool applies(const Packet& packet, const std::string& source_host,
               const std::string& destination_host);
};

}  // namespace testbed
