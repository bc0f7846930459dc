// tcp_info.h - what the kernel knows about a TCP connection (TCP_INFO in tcp(7)).
//
// The kernel's struct has grown with every few releases, and the headers of the C library and of
// Linux describe two different ages of it and cannot be included together. This is the one
// description used here. It is read by the length that the kernel returned: fields that an older
// kernel lacks are std::nullopt, never a made-up zero.
//
// It is not the connection's history; see a packet capture for that.
//
// Thread-safety: free functions without state; TcpInfo is a plain value.
//
// Example:
//   auto info = sock::tcp_info(connection);
//   if (info) std::cout << sock::tcp_state_name(info->state) << ' ' << info->rtt.count() << "
//   us\n";

#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "sock/error.h"
#include "sock/socket.h"

namespace sock {

// The states of RFC 9293, section 3.3.2, with the kernel's numbers (net/tcp_states.h).
enum class TcpState : std::uint8_t {
  established = 1,
  syn_sent,
  syn_received,
  fin_wait_1,
  fin_wait_2,
  time_wait,
  closed,
  close_wait,
  last_ack,
  listen,
  closing,
};

// "ESTABLISHED", "CLOSE_WAIT", ...; "UNKNOWN" for a number that is none of them.
constexpr std::string_view tcp_state_name(TcpState state) noexcept {
  switch (state) {
    case TcpState::established:
      return "ESTABLISHED";
    case TcpState::syn_sent:
      return "SYN_SENT";
    case TcpState::syn_received:
      return "SYN_RECV";
    case TcpState::fin_wait_1:
      return "FIN_WAIT1";
    case TcpState::fin_wait_2:
      return "FIN_WAIT2";
    case TcpState::time_wait:
      return "TIME_WAIT";
    case TcpState::closed:
      return "CLOSE";
    case TcpState::close_wait:
      return "CLOSE_WAIT";
    case TcpState::last_ack:
      return "LAST_ACK";
    case TcpState::listen:
      return "LISTEN";
    case TcpState::closing:
      return "CLOSING";
  }
  return "UNKNOWN";
}

struct TcpInfo {
  TcpState state{};
  std::uint8_t retransmits = 0;            // of the segment now unacknowledged
  std::uint8_t backoff = 0;                // how often the retransmission timer has doubled
  std::chrono::microseconds rto{};         // retransmission timeout
  std::uint32_t send_mss = 0;              // bytes of data in a full segment sent ...
  std::uint32_t receive_mss = 0;           // ... and received
  std::uint32_t unacked = 0;               // segments sent and not acknowledged (listener: queued)
  std::uint32_t lost = 0;                  // of these, believed lost
  std::chrono::microseconds rtt{};         // smoothed round trip time
  std::chrono::microseconds rtt_var{};     // and its variation
  std::uint32_t slow_start_threshold = 0;  // in segments
  std::uint32_t congestion_window = 0;     // in segments
  std::uint32_t total_retransmits = 0;     // segments sent again, whole life

  // Since Linux 4.1 to 5.4, in this order.
  std::optional<std::uint64_t> bytes_acked;  // includes the SYN and the FIN
  std::optional<std::uint64_t> bytes_received;
  std::optional<std::uint32_t> segments_out;
  std::optional<std::uint32_t> segments_in;
  std::optional<std::uint32_t> not_sent_bytes;  // in the send buffer, never sent yet
  std::optional<std::chrono::microseconds> min_rtt;
  std::optional<std::uint64_t> bytes_sent;  // data, retransmissions included
  std::optional<std::uint64_t> bytes_retransmitted;
  std::optional<std::uint32_t> send_window;  // the peer's window, scaled
};

namespace detail {

// A field of the kernel's struct at a fixed offset, if the kernel returned that much.
template <class T>
std::optional<T> tcp_info_field(std::span<const std::byte> raw, std::size_t offset) noexcept {
  static_assert(std::is_unsigned_v<T>);
  if (offset + sizeof(T) > raw.size()) return std::nullopt;
  T value{};
  std::memcpy(&value, raw.data() + offset, sizeof value);
  return value;
}

}  // namespace detail

// The struct tcp_info in `raw`, as getsockopt(2) or a socket diagnosis message returned it. The
// offsets are those of linux/tcp.h, a stable interface that only grows. EINVAL when not even the
// part that every kernel since 2.6 has (104 bytes) is there.
inline Result<TcpInfo> parse_tcp_info(std::span<const std::byte> raw) noexcept {
  constexpr std::size_t kOldestSize = 104;
  if (raw.size() < kOldestSize) return Error{EINVAL, "parse_tcp_info"};
  const auto byte = [raw](std::size_t at) { return std::to_integer<std::uint8_t>(raw[at]); };
  const auto word = [raw](std::size_t at) {
    return detail::tcp_info_field<std::uint32_t>(raw, at);
  };
  const auto wide = [raw](std::size_t at) {
    return detail::tcp_info_field<std::uint64_t>(raw, at);
  };
  const auto time = [](std::uint32_t value) { return std::chrono::microseconds(value); };

  TcpInfo info;
  info.state = TcpState{byte(0)};
  info.retransmits = byte(2);
  info.backoff = byte(4);
  info.rto = time(*word(8));
  info.send_mss = *word(16);
  info.receive_mss = *word(20);
  info.unacked = *word(24);
  info.lost = *word(32);
  info.rtt = time(*word(68));
  info.rtt_var = time(*word(72));
  info.slow_start_threshold = *word(76);
  info.congestion_window = *word(80);
  info.total_retransmits = *word(100);
  info.bytes_acked = wide(120);
  info.bytes_received = wide(128);
  info.segments_out = word(136);
  info.segments_in = word(140);
  info.not_sent_bytes = word(144);
  if (const auto min_rtt = word(148)) info.min_rtt = time(*min_rtt);
  info.bytes_sent = wide(200);
  info.bytes_retransmitted = wide(208);
  info.send_window = word(228);
  return info;
}

// getsockopt(TCP_INFO). ENOPROTOOPT or EOPNOTSUPP when it is no TCP socket.
inline Result<TcpInfo> tcp_info(const Socket& socket) noexcept {
  constexpr int kTcpInfo = 11;                            // TCP_INFO; see the top about the headers
  alignas(std::uint64_t) std::array<std::byte, 512> raw;  // Linux 6.18 returns 280
  socklen_t size = raw.size();
  if (::getsockopt(socket.get(), IPPROTO_TCP, kTcpInfo, raw.data(), &size) == -1) {
    return Error::last("getsockopt");
  }
  return parse_tcp_info(std::span(raw).first(size));
}

}  // namespace sock
