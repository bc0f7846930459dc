// barrier.h - questions to the kernel that are asked again until they hold (PROTOCOL.md,
// "Barriers").
//
// A Barrier is asked with look(); it says whether it holds and what it saw. It never waits by
// itself: the server decides when to look again and when the deadline has passed.
// Not thread-safe.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "hosts.h"
#include "link.h"
#include "run.h"
#include "socket_table.h"

namespace testbed {

// What barriers and verbs may ask about. The owner outlives every barrier made from it.
class Facts {
 public:
  virtual ~Facts() = default;
  virtual Network& network() = 0;
  virtual Link* link() = 0;  // null in T0
  virtual SocketTable& table(const std::string& host) = 0;
  virtual Run& run(std::uint64_t number) = 0;
  virtual std::int64_t now() = 0;
  virtual std::uint64_t output_total() = 0;  // bytes written by all runs
  // The rows of a host with their owners among the processes of all runs.
  virtual nlohmann::json rows(const std::string& host, Protocol protocol) = 0;
};

struct Look {
  bool held = false;
  bool ended = false;  // it can no longer hold: what it is about has ended
  nlohmann::json seen = nlohmann::json::object();
};

using Barrier = std::function<Look()>;

// Throws Refusal("usage") for a request that is not as PROTOCOL.md says.
Barrier make_barrier(const nlohmann::json& request, Facts& facts);

}  // namespace testbed
