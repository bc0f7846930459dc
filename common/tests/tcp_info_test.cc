#include "sock/tcp_info.h"

#include <gtest/gtest.h>

#include "support.h"

namespace sock {
namespace {

using testing::ConnectedPair;
using testing::Flavour;

class TcpInfoTest : public testing::FlavourTest {};
INSTANTIATE_TEST_SUITE_P(, TcpInfoTest, testing::kTcpFlavours, testing::flavour_param);

TEST_P(TcpInfoTest, FollowsTheStatesOfAConnection) {
  ConnectedPair pair(GetParam());
  EXPECT_EQ(tcp_info(pair.listener).value().state, TcpState::listen);
  EXPECT_EQ(tcp_info(pair.client).value().state, TcpState::established);
  pair.client.shutdown(SHUT_WR).value();
  EXPECT_TRUE(testing::receive_to_end(pair.server).empty());
  EXPECT_EQ(tcp_info(pair.server).value().state, TcpState::close_wait);
  // The ACK of the FIN may be delayed; it comes at the latest with the next data.
  pair.server.send(as_bytes("x")).value();
  EXPECT_EQ(testing::receive_text(pair.client, 1), "x");
  EXPECT_EQ(tcp_info(pair.client).value().state, TcpState::fin_wait_2);
}

TEST_P(TcpInfoTest, CountsTheBytes) {
  const ConnectedPair pair(GetParam());
  send_all(pair.client, testing::pattern(10'000)).value();
  EXPECT_EQ(testing::receive_text(pair.server, 10'000).size(), 10'000U);
  const TcpInfo sender = tcp_info(pair.client).value();
  const TcpInfo receiver = tcp_info(pair.server).value();
  EXPECT_EQ(receiver.bytes_received.value(), 10'000U);
  EXPECT_GE(sender.bytes_sent.value(), 10'000U);
  EXPECT_GE(sender.segments_out.value(), 2U);
  EXPECT_GT(sender.send_mss, 0U);
  EXPECT_GT(sender.congestion_window, 0U);
  EXPECT_GT(sender.rto.count(), 0);
}

TEST(TcpInfo, FieldsTheKernelDidNotReturnAreMissing) {
  std::vector<std::byte> raw(280);
  raw[0] = std::byte{1};
  raw[228] = std::byte{7};
  EXPECT_TRUE(parse_tcp_info(raw).value().send_window);
  const TcpInfo linux_4_1 = parse_tcp_info(std::span(raw).first(104)).value();
  EXPECT_EQ(linux_4_1.state, TcpState::established);
  EXPECT_FALSE(linux_4_1.bytes_acked);
  EXPECT_FALSE(linux_4_1.send_window);
  // A field of which only a part was returned is missing too.
  EXPECT_FALSE(parse_tcp_info(std::span(raw).first(231)).value().send_window);
  EXPECT_EQ(parse_tcp_info(std::span(raw).first(103)).error(), EINVAL);
}

TEST(TcpInfo, IsOnlyForTcp) {
  const Socket udp = Socket::create(AF_INET, SOCK_DGRAM).value();
  EXPECT_FALSE(tcp_info(udp));
}

TEST(TcpStateName, KnowsEveryStateOfTheKernel) {
  EXPECT_EQ(tcp_state_name(TcpState::established), "ESTABLISHED");
  EXPECT_EQ(tcp_state_name(TcpState::closing), "CLOSING");
  for (std::uint8_t number = 1; number <= 11; ++number) {
    EXPECT_NE(tcp_state_name(TcpState{number}), "UNKNOWN") << int{number};
  }
  EXPECT_EQ(tcp_state_name(TcpState{0}), "UNKNOWN");
  EXPECT_EQ(tcp_state_name(TcpState{200}), "UNKNOWN");
}

}  // namespace
}  // namespace sock
