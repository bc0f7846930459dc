// Every descriptor this library makes is closed in a program that the process starts. Proved by
// really starting one: flags read back from the kernel would not show a missing flag of fork.

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include "sock/epoll.h"
#include "sock/udp.h"
#include "support.h"

namespace sock {
namespace {

constexpr int kClosed = 0;
constexpr int kOpen = 61;

// The exit status of fd_probe, started with fork and exec, when asked about `fd`.
int probe(const Fd& fd) {
  std::string program = FD_PROBE;
  std::string number = std::to_string(fd.get());
  std::array<char*, 3> arguments{program.data(), number.data(), nullptr};
  pid_t child = 0;
  if (::posix_spawn(&child, FD_PROBE, nullptr, nullptr, arguments.data(), environ) != 0) return -1;
  int status = 0;
  while (::waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(CloseOnExec, OnlyWhatIsMadeRawIsInherited) {
  EXPECT_EQ(probe(Socket::create_raw(AF_INET, SOCK_STREAM).value()), kOpen);
  EXPECT_EQ(probe(Socket::create(AF_INET, SOCK_STREAM).value()), kClosed);
}

TEST(CloseOnExec, Connections) {
  const testing::ConnectedPair pair(testing::Flavour::kIpv4);
  EXPECT_EQ(probe(pair.listener), kClosed);
  EXPECT_EQ(probe(pair.server), kClosed);
  const SocketAddress address = pair.listener.local_address().value();
  EXPECT_EQ(probe(tcp_connect(address).value()), kClosed);
  EXPECT_EQ(probe(pair.server.dup().value()), kClosed);
  EXPECT_EQ(probe(pair.listener.accept(nullptr, 0).value()), kOpen);
}

TEST(CloseOnExec, Datagrams) {
  const Socket server = udp_bind(SocketAddress::ipv4_loopback(0)).value();
  EXPECT_EQ(probe(server), kClosed);
  EXPECT_EQ(probe(udp_connect(server.local_address().value()).value()), kClosed);
}

TEST(CloseOnExec, LocalSocketsAndPassedDescriptors) {
  const auto pair = socketpair(SOCK_STREAM).value();
  EXPECT_EQ(probe(pair.first), kClosed);
  EXPECT_EQ(probe(pair.second), kClosed);
  EXPECT_EQ(probe(socketpair(SOCK_STREAM, 0).value().first), kOpen);
  // close-on-exec belongs to the descriptor, so a passed one starts without it unless asked.
  send_fd(pair.first, pair.first).value();
  EXPECT_EQ(probe(recv_fd(pair.second).value()), kClosed);
  const Socket listener = local_listen(testing::unique_unix_address()).value();
  EXPECT_EQ(probe(listener), kClosed);
  EXPECT_EQ(probe(local_connect(listener.local_address().value()).value()), kClosed);
}

TEST(CloseOnExec, Waiting) {
  EXPECT_EQ(probe(Epoll::create().value()), kClosed);
  EXPECT_EQ(probe(EventFd::create().value()), kClosed);
  EXPECT_EQ(probe(TimerFd::create().value()), kClosed);
  EXPECT_EQ(probe(SignalFd::create(signal_set({SIGUSR1})).value()), kClosed);
}

}  // namespace
}  // namespace sock
