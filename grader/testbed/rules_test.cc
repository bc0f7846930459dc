#include "rules.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "refusal.h"

namespace testbed {
namespace {

using nlohmann::json;

Packet tcp(std::uint16_t flags, std::size_t length) {
  Packet packet;
  packet.transport = Transport::kTcp;
  packet.family = AF_INET;
  packet.flags = flags;
  packet.length = length;
  packet.source_port = 7000;
  packet.destination_port = 40000;
  return packet;
}

TEST(Match, FitsWhatItsFieldsSay) {
  const Match match = parse_match({{"from", "target"}, {"flags", {"FIN"}}, {"without", "RST"}});
  EXPECT_TRUE(match.fits(tcp(flag::kFin | flag::kAck, 0), "target", "peer"));
  EXPECT_FALSE(match.fits(tcp(flag::kFin | flag::kAck, 0), "peer", "target"));
  EXPECT_FALSE(match.fits(tcp(flag::kAck, 0), "target", "peer"));
  EXPECT_FALSE(match.fits(tcp(flag::kFin | flag::kRst, 0), "target", "peer"));
}

TEST(Match, BoundsTheLengthAndNamesPorts) {
  const Match match = parse_match({{"min_length", 10}, {"max_length", 20}, {"source_port", 7000}});
  EXPECT_FALSE(match.fits(tcp(flag::kAck, 9), "target", "peer"));
  EXPECT_TRUE(match.fits(tcp(flag::kAck, 10), "target", "peer"));
  EXPECT_TRUE(match.fits(tcp(flag::kAck, 20), "target", "peer"));
  EXPECT_FALSE(match.fits(tcp(flag::kAck, 21), "target", "peer"));
  EXPECT_FALSE(parse_match({{"destination_port", 1}}).fits(tcp(0, 0), "target", "peer"));
}

TEST(Match, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW((void)parse_match({{"colour", "red"}}), Refusal);
  EXPECT_THROW((void)parse_match({{"flags", "FINN"}}), Refusal);
  EXPECT_THROW((void)parse_match({{"transport", "sctp"}}), Refusal);
}

TEST(Rule, ActsOnTheNthFrameThatFits) {
  Rule rule;
  rule.match = parse_match({{"flags", "FIN"}, {"nth", 2}});
  EXPECT_FALSE(rule.applies(tcp(flag::kFin, 0), "target", "peer"));
  EXPECT_FALSE(rule.applies(tcp(flag::kAck, 0), "target", "peer"));  // does not count
  EXPECT_TRUE(rule.applies(tcp(flag::kFin, 0), "target", "peer"));
  EXPECT_FALSE(rule.applies(tcp(flag::kFin, 0), "target", "peer"));
}

TEST(Rule, ActsOnlyAsOftenAsItMay) {
  Rule rule;
  rule.times = 2;
  EXPECT_TRUE(rule.applies(tcp(0, 0), "target", "peer"));
  EXPECT_TRUE(rule.applies(tcp(0, 0), "target", "peer"));
  EXPECT_FALSE(rule.applies(tcp(0, 0), "target", "peer"));
}

TEST(Action, ReadsItsOwnFields) {
  const Action action = parse_action({{"action", "corrupt"}, {"offset", 3}, {"xor", 1}});
  EXPECT_EQ(action.act, Act::kCorrupt);
  EXPECT_EQ(action.offset, 3U);
  EXPECT_EQ(action.mask, 1);
  EXPECT_EQ(parse_action({{"action", "delay"}, {"ms", 7}}).delay, 7'000'000);
  EXPECT_THROW((void)parse_action({{"action", "explode"}}), Refusal);
}

}  // namespace
}  // namespace testbed
