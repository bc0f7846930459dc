#include "sock/tcp.h"

#include <gtest/gtest.h>

#include "support.h"

namespace sock {
namespace {

using namespace std::chrono_literals;
using testing::Flavour;

class TcpTest : public testing::FlavourTest {
 protected:
  // An address where nobody listens: the kernel has given the port out and taken it back.
  static SocketAddress refusing_address() {
    const Socket listener = testing::listener_of(GetParam());
    return testing::address_for_client(listener, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(, TcpTest, testing::kTcpFlavours, testing::flavour_param);

TEST_P(TcpTest, ASecondListenerIsRefused) {
  const Socket first = testing::listener_of(GetParam());
  const Error error = tcp_listen(first.local_address().value(), SOMAXCONN, false).error();
  EXPECT_EQ(error, EADDRINUSE);
  EXPECT_STREQ(error.call, "bind");
}

TEST_P(TcpTest, AListenerCanComeBackWhileOldConnectionsAreInTimeWait) {
  testing::ConnectedPair pair(GetParam());
  const SocketAddress address = pair.listener.local_address().value();
  pair.server.close().value();  // the side that ends first keeps TIME_WAIT
  EXPECT_TRUE(testing::receive_to_end(pair.client).empty());
  pair.client.close().value();
  pair.listener.close().value();
  EXPECT_TRUE(tcp_listen(address, SOMAXCONN, false));
}

TEST_P(TcpTest, ConnectReturnsABlockingSocket) {
  const Socket listener = testing::listener_of(GetParam());
  const Socket client = tcp_connect(testing::address_for_client(listener, GetParam())).value();
  EXPECT_EQ(::fcntl(client.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(client.peer_address().value(), testing::address_for_client(listener, GetParam()));
}

TEST_P(TcpTest, ConnectIsRefused) {
  const Error error = tcp_connect(refusing_address()).error();
  EXPECT_EQ(error, ECONNREFUSED);
  EXPECT_STREQ(error.call, "connect");
}

TEST_P(TcpTest, WritableDoesNotMeanConnected) {
  const Socket client = testing::client_of(GetParam(), SOCK_NONBLOCK);
  const auto started = client.connect(refusing_address());
  ASSERT_TRUE(started.error() == EINPROGRESS || started.error() == ECONNREFUSED);
  if (started.error() == ECONNREFUSED) return;  // loopback may answer at once
  ASSERT_NE(wait_for(client, POLLOUT, Deadline::never()).value() & POLLOUT, 0);
  EXPECT_EQ(finish_connect(client).error(), ECONNREFUSED);
  EXPECT_TRUE(finish_connect(client)) << "SO_ERROR is cleared when it is read";
}

TEST_P(TcpTest, ConnectTriesEveryEndpoint) {
  const Socket listener = testing::listener_of(GetParam());
  const SocketAddress good = testing::address_for_client(listener, GetParam());
  const std::array endpoints{Endpoint{refusing_address(), SOCK_STREAM, 0},
                             Endpoint{good, SOCK_STREAM, 0}};
  EXPECT_EQ(tcp_connect(endpoints).value().peer_address().value(), good);
  EXPECT_EQ(tcp_connect(std::span(endpoints).first(1)).error(), ECONNREFUSED);
}

TEST_P(TcpTest, ConnectGivesUpAtTheDeadlineWhenTheBacklogIsFull) {
  const Socket listener = testing::listener_of(GetParam(), 0);
  const SocketAddress address = testing::address_for_client(listener, GetParam());
  // A backlog of 0 holds one connection; the SYN of the next one is dropped.
  const Socket waiting = tcp_connect(address).value();
  const Deadline deadline = Deadline::after(50ms);
  const Error error = tcp_connect(address, deadline).error();
  EXPECT_EQ(error, ETIMEDOUT);
  EXPECT_STREQ(error.call, "connect");
  EXPECT_TRUE(deadline.passed());
}

TEST_P(TcpTest, SignalsDoNotBreakConnect) {
  const Socket listener = testing::listener_of(GetParam());
  const testing::SignalStorm storm;
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(tcp_connect(testing::address_for_client(listener, GetParam())));
    EXPECT_TRUE(listener.accept());
  }
}

TEST(TcpConnect, NoEndpointIsAnError) {
  EXPECT_EQ(tcp_connect(std::span<const Endpoint>()).error(), EADDRNOTAVAIL);
}

TEST(TcpListen, Ipv6OnlyDecidesAboutIpv4Clients) {
  for (const bool ipv6_only : {true, false}) {
    // The any-address, but only loopback clients: the port is known to nobody else.
    const Socket listener = tcp_listen(SocketAddress::ipv6_any(0), 1, ipv6_only).value();
    const auto port = listener.local_address().value().port();
    const auto client = tcp_connect(SocketAddress::ipv4_loopback(port));
    EXPECT_EQ(client.has_value(), !ipv6_only);
    EXPECT_TRUE(tcp_connect(SocketAddress::ipv6_loopback(port)));
  }
}

}  // namespace
}  // namespace sock
