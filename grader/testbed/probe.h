// probe.h - what this machine lets a testbed do, found by doing it.
//
// probe() opens a testbed of every tier in a child process, runs a program in its sandbox and
// names the call that was refused, with the remedy. It changes nothing.

#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "hosts.h"

namespace testbed {

// {"tier": "T1", "tiers": {"T2": {"works": false, "because": "…"}, …},
//  "capabilities": [{"name": "link", "have": true, "because": "…", "remedy": "…"}, …]}
nlohmann::json probe();

// The best tier that works here.
Tier best_tier();

// The capability words of a tier (PROTOCOL.md, "Capabilities").
std::vector<std::string> capabilities(Tier tier);

}  // namespace testbed
