// support.h - what the tests of common share: connected sockets of every flavour, a storm of
// signals, a small limit on descriptors.
//
// Ports are chosen by the kernel and UNIX names carry the process id, so tests run side by side.

#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "sock/address.h"
#include "sock/bytes.h"
#include "sock/local.h"
#include "sock/socket.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace sock::testing {

// kV4Mapped is an IPv6 listener with an IPv4 client, which it sees as ::ffff:127.0.0.1.
enum class Flavour { kIpv4, kIpv6, kV4Mapped, kUnix };

inline std::string flavour_name(Flavour flavour) {
  switch (flavour) {
    case Flavour::kIpv4:
      return "ipv4";
    case Flavour::kIpv6:
      return "ipv6";
    case Flavour::kV4Mapped:
      return "v4mapped";
    case Flavour::kUnix:
      return "unix";
  }
  return "unknown";
}

inline void PrintTo(Flavour flavour, std::ostream* out) { *out << flavour_name(flavour); }

inline const auto kAllFlavours =
    ::testing::Values(Flavour::kIpv4, Flavour::kIpv6, Flavour::kV4Mapped, Flavour::kUnix);
inline const auto kTcpFlavours =
    ::testing::Values(Flavour::kIpv4, Flavour::kIpv6, Flavour::kV4Mapped);
inline std::string flavour_param(const ::testing::TestParamInfo<Flavour>& info) {
  return flavour_name(info.param);
}

// An abstract UNIX name that no other test uses.
inline SocketAddress unique_unix_address() {
  static std::atomic<int> count{0};
  return SocketAddress::unix_path("@sockwork-test-" + std::to_string(::getpid()) + "-" +
                                  std::to_string(count++))
      .value();
}

// Where a listener of this flavour binds; port 0, so the kernel picks one.
inline SocketAddress bind_address(Flavour flavour) {
  switch (flavour) {
    case Flavour::kIpv4:
      return SocketAddress::ipv4_loopback(0);
    case Flavour::kIpv6:
      return SocketAddress::ipv6_loopback(0);
    case Flavour::kV4Mapped:
      return SocketAddress::parse("[::ffff:127.0.0.1]:0").value();
    case Flavour::kUnix:
      return unique_unix_address();
  }
  return {};
}

inline Socket listener_of(Flavour flavour, int backlog = SOMAXCONN) {
  if (flavour == Flavour::kUnix) return local_listen(bind_address(flavour), backlog).value();
  return tcp_listen(bind_address(flavour), backlog, /*ipv6_only=*/false).value();
}

// Where a client reaches the listener.
inline SocketAddress address_for_client(const Socket& listener, Flavour flavour) {
  const SocketAddress bound = listener.local_address().value();
  return flavour == Flavour::kV4Mapped ? SocketAddress::ipv4_loopback(bound.port()) : bound;
}

// A socket of the client's family, not yet connected.
inline Socket client_of(Flavour flavour, int type_flags = 0) {
  const int domain = flavour == Flavour::kUnix   ? AF_UNIX
                     : flavour == Flavour::kIpv6 ? AF_INET6
                                                 : AF_INET;
  return Socket::create(domain, SOCK_STREAM | type_flags).value();
}

struct ConnectedPair {
  explicit ConnectedPair(Flavour flavour) : listener(listener_of(flavour)) {
    client = client_of(flavour);
    client.connect(address_for_client(listener, flavour)).value();
    server = listener.accept().value();
  }

  Socket listener;
  Socket client;
  Socket server;
};

using FlavourTest = ::testing::TestWithParam<Flavour>;

// SIGALRM every millisecond, with a handler and without SA_RESTART, so that every blocking call is
// interrupted sooner or later, and again when it is repeated.
class SignalStorm {
 public:
  SignalStorm() {
    count_ = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++count_; };
    ::sigaction(SIGALRM, &action, &old_);
    set_interval(1000);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;
  ~SignalStorm() {
    set_interval(0);
    ::sigaction(SIGALRM, &old_, nullptr);
  }

  [[nodiscard]] static int count() { return count_; }

 private:
  static void set_interval(int microseconds) {
    const itimerval timer{{0, microseconds}, {0, microseconds}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }

  static inline std::atomic<int> count_{0};
  struct sigaction old_ {};
};

// While it lives, this process can open no further descriptor.
class NoDescriptorsLeft {
 public:
  NoDescriptorsLeft() {
    ::getrlimit(RLIMIT_NOFILE, &old_);
    // The lowest free number is what the next descriptor would be; numbers below are all in use.
    const int next = Fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)).get();
    const rlimit limit{static_cast<rlim_t>(next), old_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  NoDescriptorsLeft(const NoDescriptorsLeft&) = delete;
  NoDescriptorsLeft& operator=(const NoDescriptorsLeft&) = delete;
  ~NoDescriptorsLeft() { ::setrlimit(RLIMIT_NOFILE, &old_); }

 private:
  rlimit old_{};
};

// `size` bytes that contain every value and repeat with a period that is no power of two, so that
// no buffer's size hides a lost or doubled piece.
inline std::vector<std::byte> pattern(std::size_t size) {
  constexpr std::size_t kPeriod = 257;
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < std::min(size, kPeriod); ++i) bytes[i] = static_cast<std::byte>(i);
  for (std::size_t done = kPeriod; done < size; done *= 2) {
    std::memcpy(&bytes[done], bytes.data(), std::min(done, size - done));
  }
  return bytes;
}

// Everything until the end of the stream.
inline std::vector<std::byte> receive_to_end(const Socket& socket) {
  std::vector<std::byte> all;
  std::vector<std::byte> chunk(65536);
  while (true) {
    const std::size_t count = recv_at_least(socket, chunk, 1).value();
    if (count == 0) return all;
    all.insert(all.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(count));
  }
}

// Exactly `size` bytes, as text.
inline std::string receive_text(const Socket& socket, std::size_t size) {
  std::string text(size, '\0');
  const auto count = recv_at_least(socket, std::as_writable_bytes(std::span(text)), size).value();
  text.resize(count);
  return text;
}

// Ends a TCP connection with RST: SO_LINGER of 0 seconds, then close.
inline void reset_connection(Socket socket) {
  socket.set(opt::linger, std::chrono::seconds(0)).value();
  socket.close().value();
}

}  // namespace sock::testing
