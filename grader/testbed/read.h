// read.h - a capture file of any program as a trace: packets and the states they imply.
//
// The trace is that of the testbed (version 1), with hosts named after their addresses. A capture
// does not say what became of a packet: each is taken to have reached its destination. The file is
// read twice, since states can change their place when later packets become known; nothing but the
// addresses and the changes of state is held in memory.

#pragma once

#include <cstddef>
#include <ostream>
#include <string>

namespace testbed {

// Writes the trace of at most `limit` packets as JSON lines. What was left out and why is its last
// lines, and is returned as one sentence, empty when nothing was. Throws NoCapture when the file
// cannot be opened or is no capture.
std::string read_capture(const std::string& path, std::size_t limit, std::ostream& out);

}  // namespace testbed
