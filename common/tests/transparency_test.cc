// One method is one system call of the same name: run under ptrace and compared with what the
// kernel saw. The exceptions are those the headers name: send is sendto and recv is recvfrom on
// Linux, accept is accept4, eventfd and signalfd have a number at their end, dup is fcntl,
// local_address and peer_address, set and get_option say their call in their comment, and
// set_nonblocking is two calls.

#include <gtest/gtest.h>

#include <algorithm>

#include "sock/epoll.h"
#include "sock/tcp_info.h"
#include "sock/udp.h"
#include "support.h"
#include "syscall_recorder.h"

namespace sock {
namespace {

using testing::Flavour;
using testing::Syscall;

std::vector<std::string> names_of(const std::function<void()>& code) {
  std::vector<std::string> names;
  for (const Syscall& call : testing::record_syscalls(code)) names.push_back(call.name);
  return names;
}

// The one call that `code` makes; the test fails when there are more or fewer.
Syscall only_call(const std::function<void()>& code) {
  const auto calls = testing::record_syscalls(code);
  if (calls.size() == 1) return calls.front();
  std::string list;
  for (const Syscall& call : calls) list += " " + call.name;
  ADD_FAILURE() << "expected one system call, saw:" << list;
  return {};
}

// Keeps the destructor's close(2) out of the record.
template <class T>
void leak(Result<T> made) {
  [[maybe_unused]] const int fd = made.value().release();
}

// The call is `name`, made on `fd`.
template <class Code>
void expect_on(const Fd& fd, const char* name, Code code) {
  const Syscall call = only_call([&] { code().value(); });
  EXPECT_EQ(call.name, name);
  EXPECT_EQ(static_cast<int>(call.arguments[0]), fd.get()) << name;
}

// The call is `name`, and makes a descriptor with `flags` as argument number `at`.
template <class Code>
void expect_made(const char* name, std::size_t at, int flags, Code code) {
  const Syscall call = only_call([&] { leak(code()); });
  EXPECT_EQ(call.name, name);
  EXPECT_EQ(static_cast<int>(call.arguments.at(at)), flags) << name;
}

// No fixture class of GoogleTest: to reach the members of one, UBSan makes system calls of its own.
struct Connected : testing::ConnectedPair {
  Connected() : ConnectedPair(Flavour::kIpv4) {}

  SocketAddress address = listener.local_address().value();
  std::array<std::byte, 16> buffer{};
};

TEST(Transparency, Fd) {
  Connected pair;
  Socket& fd = pair.client;
  iovec part{pair.buffer.data(), pair.buffer.size()};
  expect_on(fd, "write", [&] { return fd.write(as_bytes("x")); });
  expect_on(fd, "writev", [&] { return fd.writev({&part, 1}); });
  pair.server.send(as_bytes("a")).value();
  expect_on(fd, "read", [&] { return fd.read(pair.buffer); });
  pair.server.send(as_bytes("a")).value();
  expect_on(fd, "readv", [&] { return fd.readv({&part, 1}); });
  expect_made("fcntl", 1, F_DUPFD_CLOEXEC, [&] { return fd.dup(); });
  expect_on(fd, "close", [&] { return fd.close(); });

  const auto calls = testing::record_syscalls([&] { fd.set_nonblocking(true).value(); });
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_EQ(calls[0].name, "fcntl");
  EXPECT_EQ(calls[1].name, "fcntl");
}

TEST(Transparency, FdMakesNoCallWhenItIsMovedOrReleased) {
  Connected pair;
  EXPECT_TRUE(testing::record_syscalls([&] {
                Socket moved = std::move(pair.client);
                pair.client = std::move(moved);
                pair.client = Socket(pair.client.release());
              }).empty());
}

TEST(Transparency, FdClosesOnceWhenItDies) {
  Connected pair;
  const int number = pair.client.get();
  const Syscall call = only_call([&] { const Socket dies = std::move(pair.client); });
  EXPECT_EQ(call.name, "close");
  EXPECT_EQ(static_cast<int>(call.arguments[0]), number);
}

TEST(Transparency, SocketSetUp) {
  Connected pair;
  expect_made("socket", 1, SOCK_STREAM | SOCK_CLOEXEC,
              [] { return Socket::create(AF_INET, SOCK_STREAM); });
  expect_made("socket", 1, SOCK_STREAM, [] { return Socket::create_raw(AF_INET, SOCK_STREAM); });

  const Socket server = testing::client_of(Flavour::kIpv4);
  expect_on(server, "bind", [&] { return server.bind(SocketAddress::ipv4_loopback(0)); });
  expect_on(server, "listen", [&] { return server.listen(); });
  const Socket client = testing::client_of(Flavour::kIpv4);
  expect_on(client, "connect", [&] { return client.connect(pair.address); });
  expect_made("accept4", 3, SOCK_CLOEXEC, [&] { return pair.listener.accept(); });
  const Socket second = tcp_connect(pair.address).value();
  SocketAddress peer;
  expect_made("accept4", 3, SOCK_CLOEXEC | SOCK_NONBLOCK,
              [&] { return pair.listener.accept(&peer, SOCK_CLOEXEC | SOCK_NONBLOCK); });
}

TEST(Transparency, SocketTransfer) {
  Connected pair;
  const Socket& client = pair.client;
  iovec part{pair.buffer.data(), pair.buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;

  expect_on(client, "sendto", [&] { return client.send(as_bytes("x")); });
  expect_on(client, "sendmsg", [&] { return client.sendmsg(message); });
  pair.server.send(as_bytes("a")).value();
  expect_on(client, "recvfrom", [&] { return client.recv(pair.buffer); });
  pair.server.send(as_bytes("a")).value();
  expect_on(client, "recvmsg", [&] { return client.recvmsg(message); });
  expect_on(client, "shutdown", [&] { return client.shutdown(SHUT_WR); });

  const Socket datagrams = udp_bind(SocketAddress::ipv4_loopback(0)).value();
  const SocketAddress self = datagrams.local_address().value();
  expect_on(datagrams, "sendto", [&] { return datagrams.sendto(as_bytes("x"), self); });
  SocketAddress from;
  expect_on(datagrams, "recvfrom", [&] { return datagrams.recvfrom(pair.buffer, from); });
}

TEST(Transparency, SendAddsMsgNosignal) {
  Connected pair;
  const Syscall call = only_call([&] { pair.client.send(as_bytes("x")).value(); });
  EXPECT_EQ(static_cast<int>(call.arguments[3]), MSG_NOSIGNAL);
  const Syscall bare = only_call([&] { pair.client.send(as_bytes("x"), 0).value(); });
  EXPECT_EQ(bare.arguments[3], 0U);
}

TEST(Transparency, SocketQuestions) {
  Connected pair;
  const Socket& client = pair.client;
  expect_on(client, "getsockname", [&] { return client.local_address(); });
  expect_on(client, "getpeername", [&] { return client.peer_address(); });
  expect_on(client, "setsockopt", [&] { return client.set(opt::no_delay, true); });
  expect_on(client, "getsockopt", [&] { return client.get_option(opt::linger); });
  expect_on(client, "getsockopt", [&] { return tcp_info(client); });
  expect_on(client, "getsockopt", [&] { return finish_connect(client); });
}

TEST(Transparency, Local) {
  const auto made = only_call([] {
    auto both = socketpair(SOCK_STREAM).value();
    [[maybe_unused]] const int left = both.first.release();
    [[maybe_unused]] const int right = both.second.release();
  });
  EXPECT_EQ(made.name, "socketpair");
  EXPECT_EQ(static_cast<int>(made.arguments[1]), SOCK_STREAM | SOCK_CLOEXEC);

  const auto [left, right] = socketpair(SOCK_STREAM).value();
  expect_on(left, "sendmsg", [&left = left] { return send_fd(left, left); });
  expect_on(left, "getsockopt", [&left = left] { return peer_credentials(left); });
  expect_made("recvmsg", 2, MSG_CMSG_CLOEXEC, [&right = right] { return recv_fd(right); });
}

TEST(Transparency, Epoll) {
  Connected pair;
  expect_made("epoll_create1", 0, EPOLL_CLOEXEC, [] { return Epoll::create(); });
  const Epoll epoll = Epoll::create().value();
  const int fd = pair.client.get();
  expect_on(epoll, "epoll_ctl", [&] { return epoll.add(fd, EPOLLOUT, {}); });
  expect_on(epoll, "epoll_ctl", [&] { return epoll.modify(fd, EPOLLOUT, {}); });
  std::array<epoll_event, 4> events{};
  const Syscall wait = only_call([&] { epoll.wait(events, Deadline::never()).value(); });
  EXPECT_TRUE(wait.name == "epoll_wait" || wait.name == "epoll_pwait") << wait.name;
  expect_on(epoll, "epoll_ctl", [&] { return epoll.remove(fd); });
}

TEST(Transparency, EventsTimersAndSignals) {
  const sigset_t signals = signal_set({SIGUSR1});
  expect_made("eventfd2", 1, EFD_CLOEXEC | EFD_NONBLOCK, [] { return EventFd::create(); });
  expect_made("timerfd_create", 1, TFD_CLOEXEC | TFD_NONBLOCK, [] { return TimerFd::create(); });
  expect_made("signalfd4", 3, SFD_CLOEXEC | SFD_NONBLOCK,
              [&] { return SignalFd::create(signals); });

  const EventFd event = EventFd::create(1).value();
  expect_on(event, "write", [&] { return event.signal(); });
  expect_on(event, "read", [&] { return event.take(); });
  const TimerFd timer = TimerFd::create().value();
  expect_on(timer, "timerfd_settime", [&] { return timer.settime(std::chrono::hours(1)); });
}

TEST(Transparency, WaitForIsOnePoll) {
  Connected pair;
  const Syscall call =
      only_call([&] { wait_for(pair.client, POLLOUT, Deadline::never()).value(); });
  EXPECT_TRUE(call.name == "poll" || call.name == "ppoll") << call.name;
}

// What loops or combines says its calls, in order, in its header.
TEST(Transparency, Sequences) {
  Connected pair;
  using Names = std::vector<std::string>;
  EXPECT_EQ(names_of([] { leak(tcp_listen(SocketAddress::ipv4_loopback(0))); }),
            (Names{"socket", "setsockopt", "bind", "listen"}));
  EXPECT_EQ(names_of([] { leak(tcp_listen(SocketAddress::ipv6_loopback(0))); }),
            (Names{"socket", "setsockopt", "setsockopt", "bind", "listen"}));
  EXPECT_EQ(names_of([] { leak(udp_bind(SocketAddress::ipv4_loopback(0))); }),
            (Names{"socket", "bind"}));
  const SocketAddress unix_address = testing::unique_unix_address();
  EXPECT_EQ(names_of([&] { leak(local_listen(unix_address)); }),
            (Names{"socket", "bind", "listen"}));
  EXPECT_EQ(names_of([&] { leak(udp_connect(pair.address)); }), (Names{"socket", "connect"}));
  EXPECT_EQ(names_of([&] { send_all(pair.client, as_bytes("x")).value(); }), Names{"sendto"});

  Names connect = names_of([&] { leak(tcp_connect(pair.address)); });
  std::replace(connect.begin(), connect.end(), std::string("ppoll"), std::string("poll"));
  EXPECT_EQ(connect, (Names{"socket", "connect", "poll", "getsockopt", "fcntl", "fcntl"}));
}

}  // namespace
}  // namespace sock
