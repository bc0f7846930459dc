// The state diagram of RFC 9293 section 3.3.2, walked packet by packet, and what disturbs the walk.
// Two hosts, A (client, host 0) and B (server, host 1); numbers of the packets count from 1.

#include "states.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <vector>

namespace testbed {
namespace {

using Names = std::vector<std::string>;

constexpr std::uint16_t kSyn = flag::kSyn, kAck = flag::kAck, kFin = flag::kFin, kRst = flag::kRst;

class Wire {
 public:
  enum Side { kA = 0, kB = 1 };

  Packet segment(Side from, std::uint16_t flags, std::uint32_t seq, std::uint32_t ack,
                 std::size_t length = 0) {
    Packet packet;
    packet.transport = Transport::kTcp;
    packet.family = AF_INET;
    packet.source = from == kA ? "192.0.2.2" : "192.0.2.1";
    packet.destination = from == kA ? "192.0.2.1" : "192.0.2.2";
    packet.source_port = from == kA ? 40000 : 7000;
    packet.destination_port = from == kA ? 7000 : 40000;
    packet.flags = flags;
    packet.seq = base(from) + seq;
    packet.ack = base(from == kA ? kB : kA) + ack;
    packet.length = length;
    return packet;
  }
  // Sends and does not deliver; returns the packet, with its number, for deliver().
  std::pair<std::size_t, Packet> send(Side from, std::uint16_t flags, std::uint32_t seq,
                                      std::uint32_t ack, std::size_t length = 0) {
    const Packet packet = segment(from, flags, seq, ack, length);
    states_.sent({++time_, ++number_, from}, packet);
    return {number_, packet};
  }
  void deliver(const std::pair<std::size_t, Packet>& sent) {
    const int to = sent.second.source_port == 40000 ? kB : kA;
    states_.delivered({++time_, sent.first, to}, sent.second);
  }
  void pass(Side from, std::uint16_t flags, std::uint32_t seq, std::uint32_t ack,
            std::size_t length = 0) {
    deliver(send(from, flags, seq, ack, length));
  }
  void open() {
    pass(kA, kSyn, 0, 0);
    pass(kB, kSyn | kAck, 0, 1);
    pass(kA, kAck, 1, 1);
  }
  // A new pair of initial sequence numbers.
  void renumber() { base_ += 1'000'000; }

  Names walk(Side side) {
    if (!finished_) changes_ = states_.finish();
    finished_ = true;
    Names names;
    for (const Transition& change : changes_) {
      if (change.host == side) names.emplace_back(state_name(change.to));
    }
    return names;
  }
  const std::vector<Transition>& changes() {
    (void)walk(kA);
    return changes_;
  }
  States& states() { return states_; }

 private:
  // A's numbers wrap soon after its SYN.
  [[nodiscard]] std::uint32_t base(Side side) const {
    return base_ + (side == kA ? 0xfffffffe : 5000);
  }
  States states_;
  std::uint32_t base_ = 0;
  std::int64_t time_ = 0;
  std::size_t number_ = 0;
  bool finished_ = false;
  std::vector<Transition> changes_;
};

constexpr auto kA = Wire::kA, kB = Wire::kB;
const Names kClientFirst = {"SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"};
const Names kServerSecond = {"SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"};

TEST(States, ClosingFirstAndSecond) {
  Wire wire;
  wire.open();
  wire.pass(kA, kFin | kAck, 1, 1);
  wire.pass(kB, kFin | kAck, 1, 2);
  wire.pass(kA, kAck, 2, 2);
  EXPECT_EQ(wire.walk(kA), kClientFirst);
  EXPECT_EQ(wire.walk(kB), kServerSecond);
}

TEST(States, EachChangeNamesItsPacketAndWhatWasBefore) {
  Wire wire;
  wire.open();
  const Transition& recv = wire.changes().at(1);
  EXPECT_EQ(recv.to, State::kSynRecv);
  EXPECT_FALSE(recv.from);
  EXPECT_EQ(recv.packet, 1U);  // the SYN
  EXPECT_EQ(recv.local, (End{"192.0.2.1", 7000}));
  EXPECT_EQ(recv.remote, (End{"192.0.2.2", 40000}));
  const Transition& open = wire.changes().at(2);
  EXPECT_EQ(open.from, State::kSynSent);
  EXPECT_EQ(open.packet, 2U);
}

TEST(States, HalfCloseWithDataBothWays) {
  Wire wire;
  wire.open();
  wire.pass(kA, kFin | kAck, 1, 1, 100);  // FIN with data
  wire.pass(kB, kAck, 1, 102);
  wire.pass(kB, kAck, 1, 102, 500);
  wire.pass(kA, kAck, 102, 501);
  wire.pass(kB, kFin | kAck, 501, 102);
  wire.pass(kA, kAck, 102, 502);
  EXPECT_EQ(wire.walk(kA), kClientFirst);
  EXPECT_EQ(wire.walk(kB), kServerSecond);
}

TEST(States, ClosingAtTheSameTimeIsToldByTheAcknowledgements) {
  Wire wire;
  wire.open();
  // Captured one after the other, but neither had taken the other's when it sent its own.
  wire.pass(kA, kFin | kAck, 1, 1);
  wire.pass(kB, kFin | kAck, 1, 1);
  wire.pass(kA, kAck, 2, 2);
  wire.pass(kB, kAck, 2, 2);
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT"}));
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT"}));
}

TEST(States, OpeningAtTheSameTime) {
  Wire wire;
  const auto from_a = wire.send(kA, kSyn, 0, 0);
  const auto from_b = wire.send(kB, kSyn, 0, 0);
  wire.deliver(from_a);
  wire.deliver(from_b);
  wire.pass(kA, kSyn | kAck, 0, 1);
  wire.pass(kB, kSyn | kAck, 0, 1);
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "SYN_RECV", "ESTABLISHED"}));
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_SENT", "SYN_RECV", "ESTABLISHED"}));
}

TEST(States, WhatIsSentAgainChangesNothing) {
  Wire wire;
  wire.send(kA, kSyn, 0, 0);  // lost
  wire.pass(kA, kSyn, 0, 0);
  wire.send(kB, kSyn | kAck, 0, 1);  // lost
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kSyn | kAck, 0, 1);
  wire.pass(kA, kAck, 1, 1);
  wire.send(kA, kFin | kAck, 1, 1);  // lost
  wire.pass(kA, kFin | kAck, 1, 1);
  wire.send(kB, kAck, 1, 2);  // lost
  wire.pass(kA, kFin | kAck, 1, 1);
  wire.pass(kB, kAck, 1, 2);
  wire.send(kB, kFin | kAck, 1, 2);  // lost
  wire.pass(kB, kFin | kAck, 1, 2);
  wire.send(kA, kAck, 2, 2);  // lost
  wire.pass(kB, kFin | kAck, 1, 2);
  wire.pass(kA, kAck, 2, 2);
  EXPECT_EQ(wire.walk(kA), kClientFirst);
  EXPECT_EQ(wire.walk(kB), kServerSecond);
}

TEST(States, AFinCountsWhenAllBeforeItArrived) {
  Wire wire;
  wire.open();
  const auto lost = wire.send(kA, kAck, 1, 1, 10);
  const auto middle = wire.send(kA, kAck, 11, 1, 10);
  wire.pass(kA, kFin | kAck, 21, 1);
  wire.pass(kB, kAck, 1, 1);
  wire.deliver(middle);
  wire.pass(kB, kAck, 1, 1, 7);  // still without the first ten bytes: B is in ESTABLISHED
  wire.deliver(lost);
  wire.pass(kB, kAck, 8, 22);
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "CLOSE_WAIT"}));
  const Transition& last = wire.changes().back();
  EXPECT_EQ(last.to, State::kFinWait2);  // A, by B's last packet
  const Transition& closing = *(wire.changes().end() - 2);
  EXPECT_EQ(closing.to, State::kCloseWait);
  EXPECT_EQ(closing.packet, 6U);  // the FIN, though a byte before it came last
}

TEST(States, AFinThatNeverArrivesChangesOnlyItsSender) {
  Wire wire;
  wire.open();
  wire.send(kA, kFin | kAck, 1, 1);
  EXPECT_EQ(wire.walk(kA).back(), "FIN_WAIT1");
  EXPECT_EQ(wire.walk(kB).back(), "ESTABLISHED");
}

TEST(States, AFinTheReceiverHasNoRoomForDoesNotCountUntilItIsAcknowledged) {
  Wire wire;
  wire.open();
  wire.pass(kA, kFin | kAck, 1, 1, 100);
  wire.pass(kB, kAck, 1, 1);  // window 0: it did not take the data
  wire.pass(kB, kFin | kAck, 1, 1);
  wire.pass(kA, kFin | kAck, 1, 2, 100);
  wire.pass(kB, kAck, 2, 102);
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT"}));
}

TEST(States, AResetEndsBothSides) {
  Wire wire;
  wire.open();
  wire.pass(kA, kRst | kAck, 1, 1);
  EXPECT_EQ(wire.walk(kA).back(), "CLOSED");
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "CLOSED"}));
}

TEST(States, AResetWithAnotherNumberIsNotAccepted) {
  Wire wire;
  wire.open();
  for (const std::uint32_t seq : {0U, 2U, 60000U, 0x80000000U}) {
    const Packet forged = wire.segment(kA, kRst, seq, 0);
    wire.states().delivered({100, 100, kB}, forged);
  }
  EXPECT_EQ(wire.walk(kB).back(), "ESTABLISHED");
}

TEST(States, WhatWasSentAfterAResetArrivedWasSentBeforeItWasTaken) {
  Wire wire;
  wire.open();
  wire.pass(kA, kRst | kAck, 1, 1);
  wire.pass(kB, kFin | kAck, 1, 1);  // crossed the reset
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "CLOSED"}));
}

TEST(States, ASynToAClosedPortIsRefused) {
  Wire wire;
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kRst | kAck, 0, 1);
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "CLOSED"}));
  EXPECT_EQ(wire.walk(kB), Names{});
}

TEST(States, AResetThatDoesNotAcknowledgeTheSynIsNotAccepted) {
  Wire wire;
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kRst | kAck, 0, 77);
  wire.pass(kB, kRst, 0, 1);
  EXPECT_EQ(wire.walk(kA), Names{"SYN_SENT"});
}

TEST(States, TheAnswerToAStrangeAcknowledgementLeavesSynSentAlone) {
  Wire wire;
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kAck, 500, 900);  // of a connection that A forgot
  wire.pass(kA, kRst, 900, 0);
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kSyn | kAck, 0, 1);
  wire.pass(kA, kAck, 1, 1);
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "ESTABLISHED"}));
}

TEST(States, ClosedBeforeTheAnswerCame) {
  Wire wire;
  wire.pass(kA, kSyn, 0, 0);
  wire.pass(kB, kSyn | kAck, 0, 1);
  wire.pass(kA, kRst, 1, 0);  // no socket there any more
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "CLOSED"}));
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "CLOSED"}));
}

TEST(States, AFullQueueLeavesTheServerInSynRecv) {
  Wire wire;
  wire.open();
  wire.pass(kB, kSyn | kAck, 0, 1);
  wire.pass(kA, kAck, 1, 1);
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "ESTABLISHED"}));
  EXPECT_EQ(wire.walk(kB), Names{"SYN_RECV"});
}

TEST(States, AFullQueueThatIsEmptiedOpens) {
  Wire wire;
  wire.open();
  wire.pass(kB, kSyn | kAck, 0, 1);
  wire.pass(kA, kAck, 1, 1, 10);
  wire.pass(kB, kAck, 1, 11);
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED"}));
}

TEST(States, TheSamePairOfPortsAfterTimeWait) {
  Wire wire;
  wire.open();
  wire.pass(kB, kFin | kAck, 1, 1);
  wire.pass(kA, kFin | kAck, 1, 2);
  wire.pass(kB, kAck, 2, 2);
  wire.renumber();
  wire.open();
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
                                  "CLOSED", "SYN_RECV", "ESTABLISHED"}));
  EXPECT_EQ(wire.walk(kA), (Names{"SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED",
                                  "SYN_SENT", "ESTABLISHED"}));
}

TEST(States, ASynInsideAConnectionIsRefused) {
  Wire wire;
  wire.open();
  Packet forged = wire.segment(kA, kSyn, 777, 0);
  wire.states().delivered({100, 100, kB}, forged);
  wire.pass(kB, kAck, 1, 1);
  EXPECT_EQ(wire.walk(kB), (Names{"SYN_RECV", "ESTABLISHED"}));
}

TEST(States, AConnectionOlderThanTheCapture) {
  Wire wire;
  wire.pass(kA, kAck, 300, 500, 10);
  wire.pass(kB, kAck, 500, 310);
  wire.pass(kA, kFin | kAck, 310, 500);
  wire.pass(kB, kFin | kAck, 500, 311);
  wire.pass(kA, kAck, 311, 501);
  EXPECT_EQ(wire.walk(kA), (Names{"ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"}));
  EXPECT_EQ(wire.walk(kB), (Names{"ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"}));
}

TEST(States, RangesOutOfOrderAreBoundedAndCounted) {
  Wire wire;
  wire.open();
  for (std::uint32_t i = 1; i <= States::kMostRanges + 5; ++i) {
    wire.pass(kA, kAck, 1 + 10 * i, 1, 5);
  }
  EXPECT_EQ(wire.walk(kB).back(), "ESTABLISHED");
  EXPECT_EQ(wire.states().left_out().ranges, 5U);
}

}  // namespace
}  // namespace testbed
