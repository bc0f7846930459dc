// server.h - the testbed's one event loop: control requests, frames, runs and barriers.
//
// serve() owns everything a testbed has and returns when the harness says `end` or closes the
// control socket; whatever was started is gone by then. PROTOCOL.md is the interface. One thread.

#pragma once

#include "hosts.h"

namespace testbed {

// Serves one testbed over `control_fd`, a SEQPACKET socket that it takes over. Returns the
// process's exit code.
int serve(int control_fd, Tier tier);

}  // namespace testbed
