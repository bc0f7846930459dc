// states.h - the state of each TCP socket, inferred from the packets its host sent and got.
//
// RFC 9293 sections 3.3.2 and 3.10. A host's own packets say what it had taken when it sent them:
// their acknowledgement number covers it or does not. So a FIN, a SYN or a reset that reached a
// host counts from the first packet that proves it was taken, and when nothing more was sent, from
// its arrival. That tells apart closing at the same time from closing second, whatever the delays
// between capture and host are, and needs no model of the receiver's window and buffers.
//
// A listener has no packets: its LISTEN is for the caller to tell. Its children begin at SYN_RECV.
// Not to be seen in packets, hence not told:
//   - a time-out that ends SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, LAST_ACK or TIME_WAIT (the
//     last becomes known when the same pair of addresses is used again), an ICMP error that ends
//     SYN_SENT;
//   - close(2) or shutdown(2) while data waits to be sent: the kernel is in FIN_WAIT1 from the
//     call on, we say so from the FIN on. When the other side's FIN comes in between, the kernel
//     goes FIN_WAIT1, CLOSING, TIME_WAIT where the packets show CLOSE_WAIT, LAST_ACK, CLOSED.
//
// Pure: no input or output. Bounded: kMostEndpoints sockets, and for each kMostRanges ranges that
// arrived out of order and kMostWaiting segments; left_out() counts what did not fit. Not
// thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "decode.h"
#include "socket_table.h"

namespace testbed {

enum class State {
  kSynSent,
  kSynRecv,
  kEstablished,
  kFinWait1,
  kFinWait2,
  kClosing,
  kTimeWait,
  kCloseWait,
  kLastAck,
  kClosed
};
const char* state_name(State state);

struct Transition {
  std::int64_t time = 0;
  int host = 0;
  End local, remote;
  std::optional<State> from;  // absent: the first thing known of this socket
  State to = State::kClosed;
  std::size_t packet = 0;  // because of this one
};

class States {
 public:
  static constexpr std::size_t kMostEndpoints = 200'000, kMostRanges = 256, kMostWaiting = 64;

  struct Event {
    std::int64_t time;
    std::size_t number;  // of the packet
    int host;            // that sent it or got it
  };
  // Both in order of time. A packet that is forwarded at once is sent, then delivered; one that is
  // dropped, or reaches no socket intact, is only sent; an injected one is only delivered.
  void sent(const Event& event, const Packet& packet);
  void delivered(const Event& event, const Packet& packet);

  // Everything that happened, in order of time. Call it once, after the last packet.
  std::vector<Transition> finish();

  struct LeftOut {
    std::size_t packets = 0;  // of connections past kMostEndpoints
    std::size_t ranges = 0;   // that arrived out of order, past kMostRanges
  };
  [[nodiscard]] const LeftOut& left_out() const noexcept { return left_out_; }

 private:
  struct Segment {
    std::int64_t time = 0;
    std::size_t number = 0;
    std::uint16_t flags = 0;
    std::uint32_t seq = 0, ack = 0;
    std::uint32_t fin_at = 0;  // one past its data, where its FIN would be
    std::uint32_t end = 0;     // one past everything it takes up
    [[nodiscard]] bool has(std::uint16_t wanted) const { return (flags & wanted) != 0; }
  };
  // What ends with a socket; the next one with the same pair of addresses starts anew.
  struct Connection {
    std::optional<State> state;
    // Sending side.
    std::uint32_t initial = 0;              // sequence number of its SYN
    std::uint32_t sent_end = 0;             // one past everything sent
    std::optional<std::uint32_t> fin_sent;  // the acknowledgement number that covers its FIN
    bool refusing = false;  // it sent its SYN again though the acknowledgement had arrived
    // Receiving side.
    bool receiving = false;                                      // the next two numbers are known
    std::uint32_t next = 0;                                      // everything before it was taken
    std::uint32_t acked = 0;                                     // largest acknowledgement it sent
    std::optional<Segment> fin;                                  // the other side's FIN, in hand
    bool fin_taken = false;                                      // and everything before it, too
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ahead;  // out of order: first, one past
    std::deque<Segment> waiting;                                 // arrived, not proven to be taken
  };
  struct Endpoint : Connection {
    int host = 0;
    End local, remote;
    std::int64_t time = std::numeric_limits<std::int64_t>::min();  // of the last thing known
    std::optional<Segment> syn;                                    // the last that asked to connect
  };
  using Key = std::tuple<int, std::string, std::uint16_t, std::string, std::uint16_t>;

  Endpoint* find(int host, const End& local, const End& remote);
  static Segment segment_of(const Event& event, const Packet& packet);

  void reset_sent(Endpoint& endpoint, const Segment& segment);
  void syn_sent(Endpoint& endpoint, const Segment& segment);
  void others_sent(Endpoint& endpoint, const Segment& segment);
  void adopt(Endpoint& endpoint, const Segment& segment);

  static bool is_opening(const Endpoint& endpoint);
  static const Segment* opener(const Endpoint& endpoint);
  static bool blocks(const Endpoint& endpoint, const Segment& segment);
  void settle(Endpoint& endpoint);
  void take_proven(Endpoint& endpoint, const Segment& proof);
  void take_all(Endpoint& endpoint);
  void take_first(Endpoint& endpoint);

  void take(Endpoint& endpoint, const Segment& segment);
  void take_in_syn_sent(Endpoint& endpoint, const Segment& segment);
  bool take_acknowledgement(Endpoint& endpoint, const Segment& segment);
  void take_range(Endpoint& endpoint, const Segment& segment);
  void raise_next(Endpoint& endpoint, std::uint32_t to, std::int64_t time);
  void take_fin(Endpoint& endpoint, std::int64_t time);

  void move(Endpoint& endpoint, State to, const Segment& because);

  std::map<Key, Endpoint> endpoints_;
  std::vector<Transition> transitions_;
  LeftOut left_out_;
};

}  // namespace testbed
