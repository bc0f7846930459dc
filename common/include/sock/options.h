// options.h - socket options with their C++ types.
//
// Each option is a constant that knows its level, its name and its type, so that
// socket.set(opt::no_delay, true) cannot pass the wrong size. The name of the constant in the
// manual stands beside it. Socket::set and Socket::get_option do the call.
//
// It is not a list of all options; setsockopt(2) takes any that is missing here, and a new one is
// one line: `inline constexpr Option<LEVEL, NAME, type> name;`.
//
// Thread-safety: constants.
//
// Example:
//   socket.set(sock::opt::receive_timeout, 250ms);
//   auto size = socket.get_option(sock::opt::receive_buffer);   // twice what was set: socket(7)

#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <chrono>
#include <optional>

namespace sock {

// How the kernel spells a value of type T. Most types are spelled as an int.
template <class T>
struct OptionCodec {
  using Raw = int;
  static constexpr Raw encode(T value) noexcept { return static_cast<Raw>(value); }
  static constexpr T decode(Raw raw) noexcept { return static_cast<T>(raw); }
};

template <>
struct OptionCodec<int> {
  using Raw = int;
  static constexpr Raw encode(int value) noexcept { return value; }
  static constexpr int decode(int raw) noexcept { return raw; }
};

template <>
struct OptionCodec<bool> {
  using Raw = int;
  static constexpr Raw encode(bool value) noexcept { return value ? 1 : 0; }
  static constexpr bool decode(Raw raw) noexcept { return raw != 0; }
};

template <>
struct OptionCodec<std::chrono::seconds> {
  using Raw = int;
  static constexpr Raw encode(std::chrono::seconds value) noexcept {
    return static_cast<Raw>(value.count());
  }
  static constexpr std::chrono::seconds decode(Raw raw) noexcept {
    return std::chrono::seconds(raw);
  }
};

template <>
struct OptionCodec<std::chrono::milliseconds> {
  using Raw = int;
  static constexpr Raw encode(std::chrono::milliseconds value) noexcept {
    return static_cast<Raw>(value.count());
  }
  static constexpr std::chrono::milliseconds decode(Raw raw) noexcept {
    return std::chrono::milliseconds(raw);
  }
};

// A timeout of 0 means "no timeout" to the kernel. It counts in ticks of its clock, so the value
// read back may be a little larger than the one that was set.
template <>
struct OptionCodec<std::chrono::microseconds> {
  using Raw = timeval;
  static constexpr Raw encode(std::chrono::microseconds value) noexcept {
    return {value.count() / 1'000'000, value.count() % 1'000'000};
  }
  static constexpr std::chrono::microseconds decode(const Raw& raw) noexcept {
    return std::chrono::seconds(raw.tv_sec) + std::chrono::microseconds(raw.tv_usec);
  }
};

// SO_LINGER: nothing (close in the background), or how long close(2) waits; 0 s makes it send RST.
template <>
struct OptionCodec<std::optional<std::chrono::seconds>> {
  using Raw = ::linger;
  using Value = std::optional<std::chrono::seconds>;
  static constexpr Raw encode(const Value& value) noexcept {
    return {value ? 1 : 0, value ? static_cast<int>(value->count()) : 0};
  }
  static constexpr Value decode(const Raw& raw) noexcept {
    return raw.l_onoff == 0 ? std::nullopt : Value(std::chrono::seconds(raw.l_linger));
  }
};

template <int Level, int Name, class T>
struct Option {
  using value_type = T;
  using Codec = OptionCodec<T>;
  using Raw = typename Codec::Raw;
  static constexpr int level = Level;
  static constexpr int name = Name;
};

namespace opt {

// socket(7)
inline constexpr Option<SOL_SOCKET, SO_REUSEADDR, bool> reuse_address;
inline constexpr Option<SOL_SOCKET, SO_REUSEPORT, bool> reuse_port;
inline constexpr Option<SOL_SOCKET, SO_KEEPALIVE, bool> keep_alive;
inline constexpr Option<SOL_SOCKET, SO_BROADCAST, bool> broadcast;
inline constexpr Option<SOL_SOCKET, SO_LINGER, std::optional<std::chrono::seconds>> linger;
inline constexpr Option<SOL_SOCKET, SO_RCVBUF, int> receive_buffer;  // the kernel doubles both and
inline constexpr Option<SOL_SOCKET, SO_SNDBUF, int> send_buffer;     // has limits of its own
inline constexpr Option<SOL_SOCKET, SO_RCVTIMEO, std::chrono::microseconds> receive_timeout;
inline constexpr Option<SOL_SOCKET, SO_SNDTIMEO, std::chrono::microseconds> send_timeout;
inline constexpr Option<SOL_SOCKET, SO_ERROR, int> pending_error;       // read only; reading clears
inline constexpr Option<SOL_SOCKET, SO_ACCEPTCONN, bool> is_listening;  // read only
inline constexpr Option<SOL_SOCKET, SO_TYPE, int> type;      // read only; SOCK_STREAM ...
inline constexpr Option<SOL_SOCKET, SO_DOMAIN, int> domain;  // read only; AF_INET ...

// tcp(7)
inline constexpr Option<IPPROTO_TCP, TCP_NODELAY, bool> no_delay;
inline constexpr Option<IPPROTO_TCP, TCP_CORK, bool> cork;
inline constexpr Option<IPPROTO_TCP, TCP_QUICKACK, bool> quick_ack;
inline constexpr Option<IPPROTO_TCP, TCP_MAXSEG, int> max_segment;
inline constexpr Option<IPPROTO_TCP, TCP_KEEPIDLE, std::chrono::seconds> keep_idle;
inline constexpr Option<IPPROTO_TCP, TCP_KEEPINTVL, std::chrono::seconds> keep_interval;
inline constexpr Option<IPPROTO_TCP, TCP_KEEPCNT, int> keep_count;
inline constexpr Option<IPPROTO_TCP, TCP_USER_TIMEOUT, std::chrono::milliseconds> user_timeout;

// ip(7) and ipv6(7)
inline constexpr Option<IPPROTO_IP, IP_TTL, int> ttl;
inline constexpr Option<IPPROTO_IP, IP_TOS, int> tos;
inline constexpr Option<IPPROTO_IP, IP_PKTINFO, bool> receive_packet_info;
inline constexpr Option<IPPROTO_IPV6, IPV6_V6ONLY, bool> ipv6_only;
inline constexpr Option<IPPROTO_IPV6, IPV6_UNICAST_HOPS, int> hop_limit;
inline constexpr Option<IPPROTO_IPV6, IPV6_RECVPKTINFO, bool> receive_packet_info6;

}  // namespace opt
}  // namespace sock
