#include "sock/local.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "sock/bytes.h"
#include "support.h"

namespace sock {
namespace {

TEST(Socketpair, StreamJoinsAndDatagramKeepsBoundaries) {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    const auto [left, right] = socketpair(type).value();
    left.send(as_bytes("one")).value();
    left.send(as_bytes("two")).value();
    std::array<std::byte, 16> buffer{};
    EXPECT_EQ(right.recv(buffer).value(), type == SOCK_STREAM ? 6U : 3U);
  }
}

TEST(SendFd, TheReceiverGetsADescriptorOfTheSameFile) {
  const auto [left, right] = socketpair(SOCK_STREAM).value();
  auto [inner, other] = socketpair(SOCK_STREAM).value();
  send_fd(left, inner).value();
  inner.close().value();  // the message in flight keeps the file open
  const Fd received = recv_fd(right).value();
  received.write(as_bytes("x")).value();
  EXPECT_EQ(testing::receive_text(other, 1), "x");
}

TEST(RecvFd, ReportsAMessageWithoutOneAndTheEnd) {
  auto [left, right] = socketpair(SOCK_STREAM).value();
  left.send(as_bytes("x")).value();
  EXPECT_EQ(recv_fd(right).error(), ENOMSG);
  left.close().value();
  EXPECT_EQ(recv_fd(right).error(), EPIPE);
}

TEST(RecvFd, AtTheLimitTheKernelDropsTheDescriptor) {
  const auto [left, right] = socketpair(SOCK_STREAM).value();
  send_fd(left, left).value();
  const testing::NoDescriptorsLeft limit;
  EXPECT_EQ(recv_fd(right).error(), ENOMSG);
}

TEST(PeerCredentials, AreThoseOfTheProcessThatConnected) {
  const testing::ConnectedPair pair(testing::Flavour::kUnix);
  const ucred credentials = peer_credentials(pair.server).value();
  EXPECT_EQ(credentials.pid, ::getpid());
  EXPECT_EQ(credentials.uid, ::getuid());
  EXPECT_EQ(credentials.gid, ::getgid());
}

class UnixPath : public ::testing::Test {
 protected:
  UnixPath() {
    std::string name = (std::filesystem::temp_directory_path() / "sockwork-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~UnixPath() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] SocketAddress address() const {
    return SocketAddress::unix_path((directory_ / "socket").string()).value();
  }

 private:
  std::filesystem::path directory_;
};

TEST_F(UnixPath, StaysBehindWhenTheListenerIsGone) {
  EXPECT_EQ(local_connect(address()).error(), ENOENT);
  { const Socket listener = local_listen(address()).value(); }
  EXPECT_EQ(local_connect(address()).error(), ECONNREFUSED);
  EXPECT_EQ(local_listen(address()).error(), EADDRINUSE);
}

TEST_F(UnixPath, IsTheAddressBothEndsSee) {
  const Socket listener = local_listen(address()).value();
  const Socket client = local_connect(address()).value();
  EXPECT_EQ(client.peer_address().value(), address());
  EXPECT_EQ(listener.local_address().value(), address());
  SocketAddress unnamed;
  listener.accept(&unnamed).value();
  EXPECT_EQ(unnamed.family(), AF_UNIX);
  EXPECT_EQ(unnamed.host(), "");
}

TEST(LocalConnect, AFullBacklogIsEagainWithoutBlocking) {
  const Socket listener = testing::listener_of(testing::Flavour::kUnix, 0);
  const SocketAddress address = listener.local_address().value();
  // A backlog of 0 holds one connection.
  const Socket waiting = local_connect(address).value();
  const Socket refused = testing::client_of(testing::Flavour::kUnix, SOCK_NONBLOCK);
  EXPECT_EQ(refused.connect(address).error(), EAGAIN);
}

}  // namespace
}  // namespace sock
