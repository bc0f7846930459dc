// Frames of any bytes through decode() and States: nothing may be read past a frame, and whatever
// is inferred has to be a way through the state diagram.
//
// The input is a list of frames, each: one byte with its link type and what became of it, two with
// its length, its bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "decode.h"
#include "states.h"

namespace {

using testbed::State;
using testbed::Transition;

// The arrows of RFC 9293 figure 5. Any state can end, a socket can open or be found open.
bool is_arrow(const Transition& change) {
  if (!change.from || change.from == State::kClosed) {
    return change.to == State::kSynSent || change.to == State::kSynRecv ||
           change.to == State::kEstablished;
  }
  if (change.to == State::kClosed) return true;
  switch (*change.from) {
    case State::kSynSent:
      return change.to == State::kSynRecv || change.to == State::kEstablished;
    case State::kSynRecv:
      return change.to == State::kEstablished;
    case State::kEstablished:
      return change.to == State::kFinWait1 || change.to == State::kCloseWait;
    case State::kFinWait1:
      return change.to == State::kFinWait2 || change.to == State::kClosing;
    case State::kFinWait2:
    case State::kClosing:
      return change.to == State::kTimeWait;
    case State::kCloseWait:
      return change.to == State::kLastAck;
    default:
      return false;
  }
}

void expect(bool holds) {
  if (!holds) std::abort();
}

void check(const std::vector<Transition>& changes) {
  using Key = std::tuple<int, std::string, int, std::string, int>;
  std::map<Key, State> states;
  std::int64_t time = 0;
  for (const Transition& change : changes) {
    expect(change.time >= time);
    time = change.time;
    expect(is_arrow(change));
    const Key key{change.host, change.local.address, change.local.port, change.remote.address,
                  change.remote.port};
    const auto known = states.find(key);
    expect(change.from ? known != states.end() && known->second == *change.from
                       : known == states.end() || known->second == State::kClosed);
    states[key] = change.to;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr testbed::LinkType kLinks[] = {
      testbed::LinkType::kEthernet,    testbed::LinkType::kRaw,
      testbed::LinkType::kLinuxCooked, testbed::LinkType::kLinuxCooked2,
      testbed::LinkType::kNull,        testbed::LinkType::kRawIpv4,
      testbed::LinkType::kRawIpv6,     static_cast<testbed::LinkType>(9999)};
  std::span<const std::byte> rest = std::as_bytes(std::span(data, size));
  testbed::States states;
  testbed::Conversations conversations;
  std::int64_t time = 0;
  for (std::size_t number = 1; rest.size() > 3; ++number) {
    const auto how = std::to_integer<unsigned>(rest[0]);
    const std::size_t length =
        std::to_integer<std::size_t>(rest[1]) << 8 | std::to_integer<std::size_t>(rest[2]);
    const std::size_t kept = std::min(length, rest.size() - 3);
    // A copy of its own: reading past it must not find the next frame.
    const std::vector<std::byte> frame(rest.begin() + 3,
                                       rest.begin() + 3 + static_cast<std::ptrdiff_t>(kept));
    rest = rest.subspan(3 + kept);
    const testbed::Packet packet = testbed::decode(frame, kLinks[how & 7], length - kept);
    expect(packet.payload_offset <= frame.size());
    expect(packet.length <= length);
    expect(!testbed::summary(packet, conversations.feed(packet)).empty());
    if ((how & 0x10) == 0) states.sent({++time, number, 0}, packet);
    if ((how & 0x20) == 0) states.delivered({++time, number, how & 0x40 ? 1 : 0}, packet);
  }
  check(states.finish());
  return 0;
}
