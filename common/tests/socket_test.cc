#include "sock/socket.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "support.h"

namespace sock {
namespace {

using testing::ConnectedPair;
using testing::Flavour;
using testing::FlavourTest;

class SocketTest : public FlavourTest {};
INSTANTIATE_TEST_SUITE_P(, SocketTest, testing::kAllFlavours, testing::flavour_param);

class TcpSocketTest : public FlavourTest {};
INSTANTIATE_TEST_SUITE_P(, TcpSocketTest, testing::kTcpFlavours, testing::flavour_param);

TEST_P(SocketTest, BytesCrossBothWays) {
  const ConnectedPair pair(GetParam());
  pair.client.send(as_bytes("ping")).value();
  EXPECT_EQ(testing::receive_text(pair.server, 4), "ping");
  pair.server.send(as_bytes("pong")).value();
  EXPECT_EQ(testing::receive_text(pair.client, 4), "pong");
}

TEST_P(TcpSocketTest, BothEndsAgreeOnTheAddresses) {
  const Socket listener = testing::listener_of(GetParam());
  const Socket client = testing::client_of(GetParam());
  client.connect(testing::address_for_client(listener, GetParam())).value();
  SocketAddress peer;
  const Socket server = listener.accept(&peer).value();
  EXPECT_EQ(server.peer_address().value(), peer);
  EXPECT_EQ(peer.port(), client.local_address().value().port());
  EXPECT_EQ(server.local_address().value(), listener.local_address().value());
  if (GetParam() == Flavour::kV4Mapped) {
    EXPECT_EQ(peer.host(), "::ffff:127.0.0.1");
  } else {
    EXPECT_EQ(peer, client.local_address().value());
  }
}

TEST_P(SocketTest, HalfCloseEndsOneDirectionOnly) {
  const ConnectedPair pair(GetParam());
  pair.client.send(as_bytes("question")).value();
  pair.client.shutdown(SHUT_WR).value();
  EXPECT_EQ(testing::receive_to_end(pair.server).size(), 8U);
  pair.server.send(as_bytes("answer")).value();
  EXPECT_EQ(testing::receive_text(pair.client, 6), "answer");
  EXPECT_EQ(pair.client.send(as_bytes("more")).error(), EPIPE);
}

TEST_P(SocketTest, DataEndAndWouldBlockAreThreeOutcomes) {
  ConnectedPair pair(GetParam());
  std::array<std::byte, 8> buffer{};
  pair.client.set_nonblocking(true).value();
  EXPECT_EQ(pair.client.recv(buffer).error(), EAGAIN);
  pair.server.send(as_bytes("x")).value();
  EXPECT_EQ(testing::receive_text(pair.client, 1), "x");
  pair.server.close().value();
  EXPECT_EQ(wait_for(pair.client, POLLIN, Deadline::never()).value() & POLLIN, POLLIN);
  EXPECT_EQ(pair.client.recv(buffer).value(), 0U);
}

TEST_P(SocketTest, SendToAPeerThatIsGoneIsAnErrorAndNoSignal) {
  ConnectedPair pair(GetParam());
  // Unread data makes TCP answer close with RST; a UNIX socket is gone.
  pair.client.send(as_bytes("unread")).value();
  ASSERT_TRUE(wait_for(pair.server, POLLIN, Deadline::never()));
  pair.server.close().value();
  ASSERT_TRUE(wait_for(pair.client, POLLHUP, Deadline::never()));
  std::array<std::byte, 8> buffer{};
  EXPECT_EQ(pair.client.recv(buffer).error(), ECONNRESET);
  EXPECT_EQ(pair.client.send(as_bytes("x")).error(), EPIPE);
}

TEST_P(TcpSocketTest, ResetIsNotTheEndOfTheStream) {
  ConnectedPair pair(GetParam());
  testing::reset_connection(std::move(pair.server));
  std::array<std::byte, 8> buffer{};
  EXPECT_EQ(pair.client.recv(buffer).error(), ECONNRESET);
}

TEST_P(SocketTest, AFullSendBufferTakesAPartAndThenNothing) {
  const ConnectedPair pair(GetParam());
  pair.client.set_nonblocking(true).value();
  const auto data = testing::pattern(std::size_t{16} * 1024 * 1024);
  const std::size_t taken = pair.client.send(data).value();
  EXPECT_GT(taken, 0U);
  EXPECT_LT(taken, data.size());
  // The peer's kernel may still take some of it; in the end nothing more fits.
  Result<std::size_t> more = taken;
  for (int i = 0; more && i < 100'000; ++i) more = pair.client.send(data);
  EXPECT_EQ(more.error(), EAGAIN);
}

TEST_P(SocketTest, ASignalInterruptsAcceptAndRecv) {
  const ConnectedPair pair(GetParam());
  const testing::SignalStorm storm;
  EXPECT_EQ(pair.listener.accept().error(), EINTR);
  std::array<std::byte, 8> buffer{};
  EXPECT_EQ(pair.client.recv(buffer).error(), EINTR);
}

TEST_P(SocketTest, SendmsgAndRecvmsgGatherAndScatter) {
  const ConnectedPair pair(GetParam());
  std::string head = "head ";
  std::string body = "body";
  std::array<iovec, 2> out{iovec{head.data(), head.size()}, iovec{body.data(), body.size()}};
  msghdr message{};
  message.msg_iov = out.data();
  message.msg_iovlen = out.size();
  EXPECT_EQ(pair.client.sendmsg(message).value(), 9U);
  std::array<char, 9> text{};
  iovec in{text.data(), text.size()};
  message.msg_iov = &in;
  message.msg_iovlen = 1;
  EXPECT_EQ(pair.server.recvmsg(message, MSG_WAITALL).value(), 9U);
  EXPECT_EQ(std::string_view(text.data(), text.size()), "head body");
}

TEST_P(SocketTest, NoDescriptorsLeftIsEmfile) {
  const ConnectedPair pair(GetParam());
  const testing::NoDescriptorsLeft limit;
  EXPECT_EQ(Socket::create(AF_INET, SOCK_STREAM).error(), EMFILE);
  EXPECT_EQ(pair.listener.accept().error(), EMFILE);
}

TEST(Socket, ErrorsOfTheManualComeBackAsTheyAre) {
  EXPECT_EQ(Socket::create(AF_INET, SOCK_STREAM, IPPROTO_UDP).error(), EPROTONOSUPPORT);
  const Socket none;
  EXPECT_EQ(none.listen().error(), EBADF);
  const Socket socket = testing::client_of(Flavour::kIpv4);
  EXPECT_EQ(socket.accept().error(), EINVAL);
  EXPECT_EQ(socket.peer_address().error(), ENOTCONN);
  EXPECT_EQ(socket.shutdown(SHUT_WR).error(), ENOTCONN);
  // 192.0.2.0/24 and 2001:db8::/32 are for documentation, so no host of this test has them.
  EXPECT_EQ(socket.bind(SocketAddress::parse("192.0.2.123:0").value()).error(), EADDRNOTAVAIL);
  EXPECT_EQ(socket.bind(SocketAddress::ipv6_loopback(0)).error(), EAFNOSUPPORT);
}

TEST(Options, AreReadBackWithTheirTypes) {
  using namespace std::chrono_literals;
  const Socket socket = testing::client_of(Flavour::kIpv4);
  socket.set(opt::reuse_address, true).value();
  EXPECT_TRUE(socket.get_option(opt::reuse_address).value());
  EXPECT_FALSE(socket.get_option(opt::is_listening).value());
  socket.set(opt::no_delay, true).value();
  EXPECT_TRUE(socket.get_option(opt::no_delay).value());
  socket.set(opt::keep_idle, 30s).value();
  EXPECT_EQ(socket.get_option(opt::keep_idle).value(), 30s);
  socket.set(opt::user_timeout, 1500ms).value();
  EXPECT_EQ(socket.get_option(opt::user_timeout).value(), 1500ms);
  socket.set(opt::ttl, 3).value();
  EXPECT_EQ(socket.get_option(opt::ttl).value(), 3);
  EXPECT_EQ(socket.get_option(opt::type).value(), SOCK_STREAM);
  EXPECT_EQ(socket.get_option(opt::domain).value(), AF_INET);
}

TEST(Options, LingerIsOffOrADuration) {
  using namespace std::chrono_literals;
  const Socket socket = testing::client_of(Flavour::kIpv4);
  EXPECT_EQ(socket.get_option(opt::linger).value(), std::nullopt);
  socket.set(opt::linger, 0s).value();
  EXPECT_EQ(socket.get_option(opt::linger).value(), 0s);
  socket.set(opt::linger, std::nullopt).value();
  EXPECT_EQ(socket.get_option(opt::linger).value(), std::nullopt);
}

TEST(Options, TheKernelDoublesBuffersAndRoundsTimeoutsUp) {
  using namespace std::chrono_literals;
  const Socket socket = testing::client_of(Flavour::kIpv4);
  socket.set(opt::receive_buffer, 8192).value();
  EXPECT_EQ(socket.get_option(opt::receive_buffer).value(), 16384);
  socket.set(opt::receive_timeout, 1'250ms).value();
  EXPECT_GE(socket.get_option(opt::receive_timeout).value(), 1'250ms);
}

TEST(Options, ReceiveTimeoutTurnsIntoEagain) {
  using namespace std::chrono_literals;
  const ConnectedPair pair(Flavour::kIpv4);
  pair.client.set(opt::receive_timeout, 10ms).value();
  std::array<std::byte, 8> buffer{};
  const auto start = Deadline::Clock::now();
  EXPECT_EQ(pair.client.recv(buffer).error(), EAGAIN);
  EXPECT_GE(Deadline::Clock::now() - start, 10ms);
}

}  // namespace
}  // namespace sock
