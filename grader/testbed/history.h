// history.h - the states of every TCP socket, told by a finished trace.
//
// The changes are inferred from the packets (states.h) and, for listeners, from the calls and the
// rows of the trace. A state that some look into the socket table found while it lasted counts as
// observed. Free functions without state; thread-safe.

#pragma once

#include "link.h"
#include "trace.h"

namespace testbed {

// Adds the `state` records (docs/trace.md) to `trace`. Without a link there are only listeners.
// `host_of_run` names the host of a traced run.
void add_states(Trace& trace, const Link* link, const Network& network,
                const std::function<std::string(std::uint64_t)>& host_of_run);

}  // namespace testbed
