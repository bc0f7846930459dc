#include "sock/udp.h"

#include <gtest/gtest.h>

#include "support.h"

namespace sock {
namespace {

using namespace std::chrono_literals;
using testing::Flavour;

class UdpTest : public testing::FlavourTest {
 protected:
  Socket server = udp_bind(testing::bind_address(GetParam()), /*ipv6_only=*/false).value();
  SocketAddress address = testing::address_for_client(server, GetParam());
  Socket client = udp_connect(address).value();
  std::array<std::byte, kMaxUdpPayload> buffer{};
};
INSTANTIATE_TEST_SUITE_P(, UdpTest, testing::kTcpFlavours, testing::flavour_param);

TEST_P(UdpTest, OneSendIsOneReceive) {
  client.send(as_bytes("one")).value();
  client.send({}).value();
  client.send(as_bytes("three")).value();
  for (const std::string_view expected : {"one", "", "three"}) {
    const Datagram datagram = recv_datagram(server, buffer).value();
    EXPECT_EQ(as_text(datagram.data), expected);
    EXPECT_EQ(datagram.from.port(), client.local_address().value().port());
    EXPECT_FALSE(datagram.truncated);
  }
}

TEST_P(UdpTest, TheReplyGoesToTheSender) {
  client.send(as_bytes("ping")).value();
  const Datagram request = recv_datagram(server, buffer).value();
  server.sendto(request.data, request.from).value();
  EXPECT_EQ(as_text(recv_datagram(client, buffer).value().data), "ping");
}

TEST_P(UdpTest, TheLargestDatagramArrivesWhole) {
  const auto data = testing::pattern(kMaxUdpPayload);
  client.send(data).value();
  const Datagram datagram = recv_datagram(server, buffer).value();
  EXPECT_TRUE(std::equal(datagram.data.begin(), datagram.data.end(), data.begin(), data.end()));
}

TEST_P(UdpTest, ADatagramBeyondItsLengthFieldIsTooLong) {
  EXPECT_EQ(client.send(testing::pattern(65'536)).error(), EMSGSIZE);
}

TEST(MaxUdpPayload, IsTheLimitOfIpv4) {
  const Socket socket = udp_bind(SocketAddress::ipv4_loopback(0)).value();
  const SocketAddress self = socket.local_address().value();
  EXPECT_EQ(socket.sendto(testing::pattern(kMaxUdpPayload), self).value(), kMaxUdpPayload);
  EXPECT_EQ(socket.sendto(testing::pattern(kMaxUdpPayload + 1), self).error(), EMSGSIZE);
}

TEST_P(UdpTest, ATooSmallBufferIsReported) {
  client.send(as_bytes("0123456789")).value();
  const Datagram datagram = recv_datagram(server, std::span(buffer).first(4)).value();
  EXPECT_EQ(as_text(datagram.data), "0123");
  EXPECT_TRUE(datagram.truncated);
}

TEST_P(UdpTest, TheDeadlineHoldsUnderSignals) {
  const testing::SignalStorm storm;
  const Deadline deadline = Deadline::after(30ms);
  EXPECT_EQ(recv_datagram(server, buffer, deadline).error(), ETIMEDOUT);
  EXPECT_TRUE(deadline.passed());
}

TEST_P(UdpTest, AConnectedSocketLearnsThatNobodyIsThere) {
  server.close().value();
  client.send(as_bytes("anybody?")).value();
  EXPECT_EQ(recv_datagram(client, buffer, Deadline::after(10s)).error(), ECONNREFUSED);
}

TEST_P(UdpTest, AConnectedSocketHearsNobodyElse) {
  client.send(as_bytes("hello")).value();
  const SocketAddress to = recv_datagram(server, buffer).value().from;
  const Socket stranger = udp_bind(testing::bind_address(GetParam()), false).value();
  stranger.sendto(as_bytes("forged"), to).value();
  server.sendto(as_bytes("real"), to).value();
  EXPECT_EQ(as_text(recv_datagram(client, buffer).value().data), "real");
}

TEST_P(UdpTest, ASecondSocketOnThePortIsRefused) {
  EXPECT_EQ(udp_bind(server.local_address().value(), false).error(), EADDRINUSE);
}

}  // namespace
}  // namespace sock
