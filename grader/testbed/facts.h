// facts.h - the JSON of what the testbed sees (PROTOCOL.md, "Facts").
//
// Free functions without state; thread-safe.

#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "decode.h"
#include "link.h"
#include "processes.h"
#include "socket_table.h"

namespace testbed {

nlohmann::json to_json(const End& end);
// `owners` are the pids of the run's processes that hold the socket.
nlohmann::json to_json(const Row& row, const std::vector<pid_t>& owners);
nlohmann::json to_json(const Process& process);
// `number` counts captured packets from 1. Without a passage: what the packet itself says.
nlohmann::json to_json(const Packet& packet, std::size_t number,
                       const Conversations::Relative& relative);
nlohmann::json to_json(const Packet& packet, const Passage& passage, std::size_t number,
                       const Conversations::Relative& relative, const Network& network);

// Throws Refusal("usage") when `value` is not a pair of a numeric address and a port.
End parse_end(const nlohmann::json& value);

}  // namespace testbed
