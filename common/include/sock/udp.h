// udp.h - UDP: datagrams, whole or not at all.
//
// One datagram is one send and one receive. It may be lost, doubled or late, and it comes from
// whoever sent it: udp_connect makes the kernel drop what others send, and report errors such as
// ECONNREFUSED (an ICMP port unreachable) on the next call.
//
// It is not a protocol: retransmission, identifiers and timeouts are yours.
//
// Thread-safety: free functions without state.
//
// Example:
//   auto socket = sock::udp_bind(sock::SocketAddress::ipv4_any(7000));
//   std::array<std::byte, sock::kMaxUdpPayload> buffer;
//   auto datagram = sock::recv_datagram(*socket, buffer);
//   if (datagram) socket->sendto(datagram->data, datagram->from);

#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/socket.h"
#include "sock/stream.h"
#include "sock/wait.h"

namespace sock {

// The most bytes an IPv4 datagram can carry: 65,535 less the IP header (20) and UDP header (8).
inline constexpr std::size_t kMaxUdpPayload = 65'507;

// A socket that receives at `address`: socket, setsockopt(IPV6_V6ONLY) for IPv6, bind. SO_REUSEADDR
// is not set: with UDP it would let a second program take over the port without an error.
inline Result<Socket> udp_bind(const SocketAddress& address, bool ipv6_only = true) noexcept {
  auto socket = Socket::create(address.family(), SOCK_DGRAM);
  if (!socket) return socket;
  if (address.family() == AF_INET6) {
    if (auto done = socket->set(opt::ipv6_only, ipv6_only); !done) return done.error();
  }
  if (auto done = socket->bind(address); !done) return done.error();
  return socket;
}

// A socket that talks to `address` only: socket, connect. No packet is sent, so success does not
// mean that anybody is there.
inline Result<Socket> udp_connect(const SocketAddress& address) noexcept {
  auto socket = Socket::create(address.family(), SOCK_DGRAM);
  if (!socket) return socket;
  if (auto done = socket->connect(address); !done) return done.error();
  return socket;
}

struct Datagram {
  std::span<std::byte> data;  // a part of the buffer that was passed in; may be empty
  SocketAddress from;
  bool truncated = false;  // it was longer than the buffer, and its tail is lost
};

// The next datagram: recvfrom(2), and poll(2) while there is none. A datagram can vanish between
// the two (a wrong checksum is found only when it is read), so readiness is never trusted.
// ETIMEDOUT when the deadline passed; ECONNREFUSED on a connected socket.
inline Result<Datagram> recv_datagram(const Socket& socket, std::span<std::byte> buffer,
                                      Deadline deadline = Deadline::never()) noexcept {
  Datagram datagram;
  while (true) {
    const auto size = socket.recvfrom(buffer, datagram.from, MSG_TRUNC | MSG_DONTWAIT);
    if (size) {
      datagram.data = buffer.first(std::min(*size, buffer.size()));
      datagram.truncated = *size > buffer.size();
      return datagram;
    }
    if (auto retry = detail::wait_to_retry(socket, POLLIN, size.error(), deadline); !retry) {
      return retry.error();
    }
  }
}

}  // namespace sock
