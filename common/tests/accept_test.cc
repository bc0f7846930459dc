// The errors of accept(2) and what a server does about them.

#include <gtest/gtest.h>

#include <thread>

#include "sock/tcp.h"
#include "support.h"

namespace sock {
namespace {

using testing::Flavour;

TEST(ClassifyAcceptError, EveryErrorOfTheManualHasAClass) {
  EXPECT_EQ(classify_accept_error(EAGAIN), AcceptAction::wait);
  for (const int error : {EINTR, ECONNABORTED, EPERM, EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH,
                          EHOSTDOWN, EHOSTUNREACH, ENONET}) {
    EXPECT_EQ(classify_accept_error(error), AcceptAction::retry) << errno_name(error);
  }
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    EXPECT_EQ(classify_accept_error(error), AcceptAction::back_off) << errno_name(error);
  }
  for (const int error : {EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP, EFAULT}) {
    EXPECT_EQ(classify_accept_error(error), AcceptAction::stop) << errno_name(error);
  }
}

class AcceptTest : public testing::FlavourTest {};
INSTANTIATE_TEST_SUITE_P(, AcceptTest, testing::kTcpFlavours, testing::flavour_param);

TEST_P(AcceptTest, AClientThatResetsBeforeAcceptCostsOnlyItself) {
  const Socket listener = testing::listener_of(GetParam());
  const SocketAddress address = testing::address_for_client(listener, GetParam());
  testing::reset_connection(tcp_connect(address).value());
  const Socket next = tcp_connect(address).value();

  // Linux hands the dead connection out and tells the news later (BSD: ECONNABORTED).
  const auto dead = listener.accept();
  ASSERT_TRUE(dead) << dead.error().message();
  EXPECT_EQ(dead->peer_address().error(), ENOTCONN);
  std::array<std::byte, 1> buffer{};
  EXPECT_EQ(dead->recv(buffer).error(), ECONNRESET);
  EXPECT_TRUE(listener.accept());
}

TEST_P(AcceptTest, WithoutDescriptorsTheConnectionStaysQueued) {
  const Socket listener = testing::listener_of(GetParam());
  const SocketAddress address = testing::address_for_client(listener, GetParam());
  const Socket client = tcp_connect(address).value();
  {
    const testing::NoDescriptorsLeft limit;
    const Error error = listener.accept().error();
    EXPECT_EQ(classify_accept_error(error.code), AcceptAction::back_off) << error.message();
    // Still readable: a loop that goes on polling would spin.
    EXPECT_EQ(wait_for(listener, POLLIN, Deadline::never()).value(), POLLIN);
  }
  const Socket server = listener.accept().value();
  server.send(as_bytes("x")).value();
  EXPECT_EQ(testing::receive_text(client, 1), "x");
}

TEST_P(AcceptTest, ShutdownOfTheListenerEndsABlockedAccept) {
  const Socket listener = testing::listener_of(GetParam());
  Error error;
  std::thread acceptor([&] { error = listener.accept().error(); });
  // Whether accept has begun already or begins after it: both end with EINVAL.
  listener.shutdown(SHUT_RD).value();
  acceptor.join();
  EXPECT_EQ(error, EINVAL);
  EXPECT_EQ(classify_accept_error(error.code), AcceptAction::stop);
}

TEST_P(AcceptTest, TcpAcceptGoesOnAfterSignals) {
  const Socket listener = testing::listener_of(GetParam());
  const testing::SignalStorm storm;
  std::thread client([&] {
    while (testing::SignalStorm::count() < 3) std::this_thread::yield();
    EXPECT_TRUE(tcp_connect(testing::address_for_client(listener, GetParam())));
  });
  EXPECT_TRUE(tcp_accept(listener));
  client.join();
}

TEST_P(AcceptTest, NothingToAcceptIsEagain) {
  const Socket listener = testing::listener_of(GetParam());
  listener.set_nonblocking(true).value();
  EXPECT_EQ(classify_accept_error(listener.accept().error().code), AcceptAction::wait);
}

TEST_P(AcceptTest, TheListenersNonblockingModeIsNotPassedOn) {
  const Socket listener = testing::listener_of(GetParam());
  listener.set_nonblocking(true).value();
  const SocketAddress address = testing::address_for_client(listener, GetParam());
  const Socket first = tcp_connect(address).value();
  const Socket second = tcp_connect(address).value();
  const Socket plain = listener.accept().value();
  EXPECT_EQ(::fcntl(plain.get(), F_GETFL) & O_NONBLOCK, 0);
  const Socket asked = listener.accept(nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK).value();
  EXPECT_NE(::fcntl(asked.get(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace sock
