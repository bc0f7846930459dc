#include "states.h"

#include <algorithm>

namespace testbed {
namespace {

// Sequence numbers wrap: RFC 9293 section 3.4.
bool before(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }
bool after(std::uint32_t a, std::uint32_t b) { return before(b, a); }

}  // namespace

const char* state_name(State state) {
  constexpr const char* kNames[] = {"SYN_SENT",  "SYN_RECV", "ESTABLISHED", "FIN_WAIT1",
                                    "FIN_WAIT2", "CLOSING",  "TIME_WAIT",   "CLOSE_WAIT",
                                    "LAST_ACK",  "CLOSED"};
  return kNames[static_cast<std::size_t>(state)];
}

States::Segment States::segment_of(const Event& event, const Packet& packet) {
  Segment segment;
  segment.time = event.time;
  segment.number = event.number;
  segment.flags = packet.flags;
  segment.seq = packet.seq;
  segment.ack = packet.ack;
  segment.fin_at =
      packet.seq + static_cast<std::uint32_t>(packet.length) + (segment.has(flag::kSyn) ? 1U : 0U);
  segment.end = segment.fin_at + (segment.has(flag::kFin) ? 1U : 0U);
  return segment;
}

States::Endpoint* States::find(int host, const End& local, const End& remote) {
  const Key key{host, local.address, local.port, remote.address, remote.port};
  const auto known = endpoints_.find(key);
  if (known != endpoints_.end()) return &known->second;
  if (endpoints_.size() >= kMostEndpoints) {
    ++left_out_.packets;
    return nullptr;
  }
  Endpoint& endpoint = endpoints_[key];
  endpoint.host = host;
  endpoint.local = local;
  endpoint.remote = remote;
  return &endpoint;
}

// --- What a host sent
// -------------------------------------------------------------------------------

void States::sent(const Event& event, const Packet& packet) {
  if (packet.transport != Transport::kTcp || !packet.problem.empty()) return;
  Endpoint* endpoint = find(event.host, {packet.source, packet.source_port},
                            {packet.destination, packet.destination_port});
  if (endpoint == nullptr) return;
  const Segment segment = segment_of(event, packet);
  if (segment.has(flag::kRst)) {
    reset_sent(*endpoint, segment);
  } else if (segment.has(flag::kSyn)) {
    syn_sent(*endpoint, segment);
  } else {
    others_sent(*endpoint, segment);
  }
  endpoint->time = std::max(endpoint->time, event.time);
}

void States::reset_sent(Endpoint& endpoint, const Segment& segment) {
  if (!endpoint.state || endpoint.state == State::kClosed) return;
  if (segment.has(flag::kAck)) {
    take_proven(endpoint, segment);
    if (const Segment* opened_by = opener(endpoint))
      move(endpoint, State::kEstablished, *opened_by);
  } else if (is_opening(endpoint) && segment.seq != endpoint.initial + 1) {
    // The answer to an acknowledgement of something never sent: the socket stays as it is (RFC 9293
    // sections 3.10.7.3 and 3.10.7.4, fifth).
    return;
  }
  // Without ACK it answers a packet that found no socket any more, so what waits was not taken.
  endpoint.waiting.clear();
  if (endpoint.state != State::kClosed) move(endpoint, State::kClosed, segment);
}

void States::syn_sent(Endpoint& endpoint, const Segment& segment) {
  const bool again = endpoint.state && endpoint.initial == segment.seq;
  if (again && endpoint.state == State::kClosed) return;
  const bool answers = segment.has(flag::kAck);
  if (!again) {
    // A new initial number is a new socket: the one before it with this pair of addresses is over.
    take_all(endpoint);
    if (endpoint.state && endpoint.state != State::kClosed) move(endpoint, State::kClosed, segment);
    static_cast<Connection&>(endpoint) = {};
    endpoint.initial = segment.seq;
    const bool asked = answers && endpoint.syn && endpoint.syn->seq + 1 == segment.ack;
    Segment because = asked ? *endpoint.syn : segment;
    because.time = segment.time;
    move(endpoint, answers ? State::kSynRecv : State::kSynSent, because);
    endpoint.sent_end = segment.end;
  } else if (endpoint.state == State::kSynSent && answers) {  // both sides open
    take_proven(endpoint, segment);
    if (endpoint.state == State::kSynSent) move(endpoint, State::kSynRecv, segment);
  } else if (endpoint.state == State::kSynRecv && opener(endpoint) != nullptr) {
    // What came did not open it: the queue of accept(2) is full. Or the two crossed, and then the
    // other side will acknowledge once more.
    endpoint.refusing = true;
    endpoint.waiting.clear();
  }
  if (answers && !endpoint.receiving) {
    endpoint.receiving = true;
    endpoint.next = endpoint.acked = segment.ack;
  }
  if (after(segment.end, endpoint.sent_end)) endpoint.sent_end = segment.end;
}

void States::others_sent(Endpoint& endpoint, const Segment& segment) {
  if (endpoint.state == State::kClosed || !segment.has(flag::kAck)) return;
  if (!endpoint.state) adopt(endpoint, segment);
  take_proven(endpoint, segment);
  if (is_opening(endpoint)) {  // whoever sends something else than a SYN has an open connection
    const Segment* opened_by = opener(endpoint);
    move(endpoint, State::kEstablished, opened_by == nullptr ? segment : *opened_by);
    if (!endpoint.receiving) endpoint.next = endpoint.acked = segment.ack;
    endpoint.receiving = true;
    settle(endpoint);
  }
  if (endpoint.state == State::kClosed) return;
  if (after(segment.ack, endpoint.acked)) endpoint.acked = segment.ack;
  raise_next(endpoint, segment.ack, segment.time);
  if (after(segment.end, endpoint.sent_end)) endpoint.sent_end = segment.end;
  if (!segment.has(flag::kFin) || endpoint.fin_sent) return;
  if (endpoint.state == State::kEstablished) move(endpoint, State::kFinWait1, segment);
  if (endpoint.state == State::kCloseWait) move(endpoint, State::kLastAck, segment);
  endpoint.fin_sent = segment.end;
}

// A connection that was open before the first packet we saw.
void States::adopt(Endpoint& endpoint, const Segment& segment) {
  endpoint.initial = segment.seq - 1;
  endpoint.sent_end = segment.seq;
  endpoint.receiving = true;
  endpoint.next = segment.ack;
  if (!endpoint.waiting.empty() && before(endpoint.waiting.front().seq, segment.ack)) {
    endpoint.next = endpoint.waiting.front().seq;
  }
  endpoint.acked = endpoint.next;
  move(endpoint, State::kEstablished, segment);
}

// --- What reached a host
// ----------------------------------------------------------------------------

void States::delivered(const Event& event, const Packet& packet) {
  if (packet.transport != Transport::kTcp || !packet.problem.empty()) return;
  Endpoint* endpoint = find(event.host, {packet.destination, packet.destination_port},
                            {packet.source, packet.source_port});
  if (endpoint == nullptr) return;
  const Segment segment = segment_of(event, packet);
  if (segment.has(flag::kSyn) && !segment.has(flag::kAck)) endpoint->syn = segment;
  // A SYN opens nothing by itself: the answer will tell. Inside a connection it is refused with an
  // acknowledgement (RFC 9293 section 3.10.7.4, fourth).
  if (segment.has(flag::kSyn) && !is_opening(*endpoint)) return;
  if (segment.has(flag::kRst) && !endpoint->state) return;
  endpoint->waiting.push_back(segment);
  if (endpoint->waiting.size() > kMostWaiting) take_first(*endpoint);
  settle(*endpoint);
}

bool States::is_opening(const Endpoint& endpoint) {
  return endpoint.state == State::kSynSent || endpoint.state == State::kSynRecv;
}

// What has arrived in SYN_RECV and acknowledges the SYN that was sent.
const States::Segment* States::opener(const Endpoint& endpoint) {
  if (endpoint.state != State::kSynRecv) return nullptr;
  const auto found =
      std::find_if(endpoint.waiting.begin(), endpoint.waiting.end(), [&](const Segment& waits) {
        return waits.has(flag::kAck) && !waits.has(flag::kRst) &&
               after(waits.ack, endpoint.initial) && !after(waits.ack, endpoint.sent_end);
      });
  return found == endpoint.waiting.end() ? nullptr : &*found;
}

// Whether it makes a difference if the owner's next packet was sent before or after taking this.
bool States::blocks(const Endpoint& endpoint, const Segment& segment) {
  if (endpoint.state == State::kClosed) return false;
  if (!endpoint.receiving || endpoint.state == State::kSynRecv) return true;
  if (segment.has(flag::kRst)) return segment.seq == endpoint.next;
  return segment.has(flag::kFin) && after(segment.end, endpoint.acked);
}

void States::settle(Endpoint& endpoint) {
  while (!endpoint.waiting.empty() && !blocks(endpoint, endpoint.waiting.front())) {
    take_first(endpoint);
  }
}

// Takes what `proof`, sent by the owner, acknowledges for the first time, and all that came before.
void States::take_proven(Endpoint& endpoint, const Segment& proof) {
  std::size_t proven = 0;
  for (std::size_t i = 0; i < endpoint.waiting.size(); ++i) {
    const Segment& waits = endpoint.waiting[i];
    const bool fresh = !endpoint.receiving || after(waits.end, endpoint.acked);
    const bool covered = waits.end != waits.seq && !after(waits.end, proof.ack);
    if (fresh && covered && !waits.has(flag::kRst)) proven = i + 1;
  }
  for (; proven > 0; --proven) {
    if (endpoint.waiting.front().has(flag::kRst)) {
      endpoint.waiting.pop_front();  // the owner lives, so it was not accepted
    } else {
      take_first(endpoint);
    }
  }
  settle(endpoint);
}

void States::take_all(Endpoint& endpoint) {
  if (endpoint.state == State::kSynRecv && endpoint.refusing) endpoint.waiting.clear();
  while (!endpoint.waiting.empty()) take_first(endpoint);
}

void States::take_first(Endpoint& endpoint) {
  const Segment segment = endpoint.waiting.front();
  endpoint.waiting.pop_front();
  take(endpoint, segment);
}

// RFC 9293 section 3.10.7: the arrival of a segment.
void States::take(Endpoint& endpoint, const Segment& segment) {
  if (!endpoint.state || endpoint.state == State::kClosed) return;
  if (endpoint.state == State::kSynSent) return take_in_syn_sent(endpoint, segment);
  if (segment.has(flag::kRst)) {
    // Only the exact number ends a connection; another one within the window is answered with an
    // acknowledgement (section 3.10.7.4, second).
    if (segment.seq == endpoint.next) move(endpoint, State::kClosed, segment);
    return;
  }
  // A retransmitted segment still brings its acknowledgement, anything older does not.
  if (!segment.has(flag::kAck) || before(segment.end, endpoint.acked)) return;
  if (!take_acknowledgement(endpoint, segment) || segment.has(flag::kSyn)) return;
  take_range(endpoint, segment);
}

void States::take_in_syn_sent(Endpoint& endpoint, const Segment& segment) {
  const bool acknowledges =
      after(segment.ack, endpoint.initial) && !after(segment.ack, endpoint.sent_end);
  if (segment.has(flag::kAck) && !acknowledges) return;
  if (segment.has(flag::kRst)) {
    if (segment.has(flag::kAck)) move(endpoint, State::kClosed, segment);
    return;
  }
  if (!segment.has(flag::kSyn)) return;
  endpoint.receiving = true;
  endpoint.next = endpoint.acked = segment.seq + 1;
  move(endpoint, segment.has(flag::kAck) ? State::kEstablished : State::kSynRecv, segment);
}

// False when the segment has to be dropped for its acknowledgement number.
bool States::take_acknowledgement(Endpoint& endpoint, const Segment& segment) {
  if (after(segment.ack, endpoint.sent_end)) return false;
  if (endpoint.state == State::kSynRecv) {
    if (!after(segment.ack, endpoint.initial)) return false;
    move(endpoint, State::kEstablished, segment);
  }
  if (!endpoint.fin_sent || before(segment.ack, *endpoint.fin_sent)) return true;
  if (endpoint.state == State::kFinWait1) {
    move(endpoint, State::kFinWait2, segment);
  } else if (endpoint.state == State::kClosing) {
    move(endpoint, State::kTimeWait, segment);
  } else if (endpoint.state == State::kLastAck) {
    move(endpoint, State::kClosed, segment);
  }
  return true;
}

void States::take_range(Endpoint& endpoint, const Segment& segment) {
  if (segment.has(flag::kFin) && !endpoint.fin) endpoint.fin = segment;
  if (!after(segment.seq, endpoint.next)) {
    return raise_next(endpoint, segment.fin_at, segment.time);
  }
  if (segment.fin_at == segment.seq) return;
  for (auto& [first, end] : endpoint.ahead) {
    if (after(segment.seq, end) || before(segment.seq, first)) continue;
    if (after(segment.fin_at, end)) end = segment.fin_at;
    return;
  }
  if (endpoint.ahead.size() < kMostRanges) {
    endpoint.ahead.emplace_back(segment.seq, segment.fin_at);
  } else {
    ++left_out_.ranges;
  }
}

// Everything before `to` was taken, and what lies ahead without a gap.
void States::raise_next(Endpoint& endpoint, std::uint32_t to, std::int64_t time) {
  if (after(to, endpoint.next)) endpoint.next = to;
  const auto touches = [&](const auto& range) { return !after(range.first, endpoint.next); };
  auto& ahead = endpoint.ahead;
  for (auto range = std::find_if(ahead.begin(), ahead.end(), touches); range != ahead.end();
       range = std::find_if(ahead.begin(), ahead.end(), touches)) {
    if (after(range->second, endpoint.next)) endpoint.next = range->second;
    ahead.erase(range);
  }
  if (endpoint.fin && !endpoint.fin_taken && !before(endpoint.next, endpoint.fin->fin_at)) {
    take_fin(endpoint, time);
  }
}

// The other side's FIN, with nothing missing before it (RFC 9293 section 3.10.7.4, eighth).
void States::take_fin(Endpoint& endpoint, std::int64_t time) {
  endpoint.fin_taken = true;
  if (before(endpoint.next, endpoint.fin->end)) endpoint.next = endpoint.fin->end;
  Segment because = *endpoint.fin;
  because.time = time;  // what came last may have been a byte before it
  if (endpoint.state == State::kEstablished) {
    move(endpoint, State::kCloseWait, because);
  } else if (endpoint.state == State::kFinWait1) {
    move(endpoint, State::kClosing, because);
  } else if (endpoint.state == State::kFinWait2) {
    move(endpoint, State::kTimeWait, because);
  }
}

void States::move(Endpoint& endpoint, State to, const Segment& because) {
  endpoint.time = std::max(endpoint.time, because.time);
  transitions_.push_back({endpoint.time, endpoint.host, endpoint.local, endpoint.remote,
                          endpoint.state, to, because.number});
  endpoint.state = to;
}

std::vector<Transition> States::finish() {
  for (auto& [key, endpoint] : endpoints_) take_all(endpoint);
  std::stable_sort(transitions_.begin(), transitions_.end(),
                   [](const Transition& a, const Transition& b) { return a.time < b.time; });
  return std::move(transitions_);
}

}  // namespace testbed
