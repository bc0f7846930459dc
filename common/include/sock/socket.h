// socket.h - a socket: one method is one system call of the same name.
//
// What the manual page says about the call is true of the method, errno included. The only things
// added are default arguments you can see in the signature: SOCK_CLOEXEC, so that no program you
// start inherits a connection by accident, and MSG_NOSIGNAL, so that a peer that went away is the
// error EPIPE and not a signal that ends the process.
//
// It is not a stream: send and recv move as many bytes as the kernel likes, and return EINTR and
// EAGAIN to you. What needs more than one call is a free function in stream.h, tcp.h, udp.h or
// local.h. Names in a trace may differ from the manual's: x86-64 Linux has no system calls send and
// recv, the C library turns them into sendto and recvfrom.
//
// Thread-safety: as Fd. Two threads may send and receive on one socket at the same time.
//
// Example:
//   auto listener = sock::Socket::create(AF_INET6, SOCK_STREAM).value();
//   listener.bind(sock::SocketAddress::ipv6_any(7000)).value();
//   listener.listen().value();
//   sock::SocketAddress peer;
//   auto connection = listener.accept(&peer);

#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <span>
#include <utility>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/fd.h"
#include "sock/options.h"

namespace sock {

class Socket : public Fd {
 public:
  Socket() noexcept = default;
  explicit Socket(int fd) noexcept : Fd(fd) {}
  explicit Socket(Fd fd) noexcept : Fd(std::move(fd)) {}

  // socket(2) with SOCK_CLOEXEC added to `type`; SOCK_NONBLOCK may be added by you. EAFNOSUPPORT,
  // EPROTONOSUPPORT, EMFILE, ENFILE.
  static Result<Socket> create(int domain, int type, int protocol = 0) noexcept {
    return create_raw(domain, type | SOCK_CLOEXEC, protocol);
  }
  // socket(2) with nothing added, for a descriptor that a started program shall inherit.
  static Result<Socket> create_raw(int domain, int type, int protocol = 0) noexcept {
    const int fd = ::socket(domain, type, protocol);
    if (fd == -1) return Error::last("socket");
    return Socket(fd);
  }

  // bind(2). EADDRINUSE, EADDRNOTAVAIL (not an address of this host), EACCES (a port below 1024).
  Result<void> bind(const SocketAddress& address) const noexcept {
    return detail::check_done(::bind(get(), address.data(), address.size()), "bind");
  }

  // listen(2). `backlog` is how many connections may wait to be accepted, no limit on clients.
  Result<void> listen(int backlog = SOMAXCONN) const noexcept {
    return detail::check_done(::listen(get(), backlog), "listen");
  }

  // connect(2). ECONNREFUSED, ETIMEDOUT, ENETUNREACH. EINPROGRESS (non-blocking) and EINTR both
  // mean that the connection is still being made: wait for POLLOUT, then finish_connect (tcp.h);
  // do not call connect again.
  Result<void> connect(const SocketAddress& address) const noexcept {
    return detail::check_done(::connect(get(), address.data(), address.size()), "connect");
  }

  // accept4(2). The peer's address goes to `peer` unless it is null; add SOCK_NONBLOCK to `flags`
  // if you want it (Linux does not pass the listener's on). tcp.h sorts the errors into classes.
  Result<Socket> accept(SocketAddress* peer = nullptr, int flags = SOCK_CLOEXEC) const noexcept {
    const int fd = peer == nullptr ? ::accept4(get(), nullptr, nullptr, flags)
                                   : ::accept4(get(), peer->data(), peer->size_ptr(), flags);
    if (fd == -1) return Error::last("accept");
    return Socket(fd);
  }

  // shutdown(2): SHUT_WR sends FIN after what is queued, and recv still works. SHUT_RD sends
  // nothing. The descriptor stays open. ENOTCONN when the peer has reset the connection.
  Result<void> shutdown(int how) const noexcept {
    return detail::check_done(::shutdown(get(), how), "shutdown");
  }

  // send(2). How many bytes were taken, possibly fewer than given. EAGAIN, EINTR, EPIPE,
  // ECONNRESET; EMSGSIZE for a datagram that is too long.
  Result<std::size_t> send(std::span<const std::byte> data,
                           int flags = MSG_NOSIGNAL) const noexcept {
    return detail::check_count(::send(get(), data.data(), data.size(), flags), "send");
  }

  // recv(2). The number of bytes; of a stream, 0 is the end (the peer's FIN). EAGAIN, EINTR,
  // ECONNRESET.
  Result<std::size_t> recv(std::span<std::byte> buffer, int flags = 0) const noexcept {
    return detail::check_count(::recv(get(), buffer.data(), buffer.size(), flags), "recv");
  }

  // sendto(2): one datagram to `to`. As send.
  Result<std::size_t> sendto(std::span<const std::byte> data, const SocketAddress& to,
                             int flags = MSG_NOSIGNAL) const noexcept {
    return detail::check_count(
        ::sendto(get(), data.data(), data.size(), flags, to.data(), to.size()), "sendto");
  }

  // recvfrom(2): one datagram and its sender. With MSG_TRUNC the result is the datagram's real
  // length, more than the buffer's when its tail was cut off. 0 is an empty datagram, no end.
  Result<std::size_t> recvfrom(std::span<std::byte> buffer, SocketAddress& from,
                               int flags = MSG_TRUNC) const noexcept {
    return detail::check_count(
        ::recvfrom(get(), buffer.data(), buffer.size(), flags, from.data(), from.size_ptr()),
        "recvfrom");
  }

  // sendmsg(2) and recvmsg(2): several buffers and control messages (cmsg(3)).
  Result<std::size_t> sendmsg(const msghdr& message, int flags = MSG_NOSIGNAL) const noexcept {
    return detail::check_count(::sendmsg(get(), &message, flags), "sendmsg");
  }
  Result<std::size_t> recvmsg(msghdr& message, int flags = MSG_CMSG_CLOEXEC) const noexcept {
    return detail::check_count(::recvmsg(get(), &message, flags), "recvmsg");
  }

  // getsockname(2): this end; after bind to port 0 the port that the kernel chose.
  [[nodiscard]] Result<SocketAddress> local_address() const noexcept {
    SocketAddress address;
    if (::getsockname(get(), address.data(), address.size_ptr()) == -1) {
      return Error::last("getsockname");
    }
    return address;
  }

  // getpeername(2): the other end. ENOTCONN, also when the peer has reset the connection meanwhile.
  [[nodiscard]] Result<SocketAddress> peer_address() const noexcept {
    SocketAddress address;
    if (::getpeername(get(), address.data(), address.size_ptr()) == -1) {
      return Error::last("getpeername");
    }
    return address;
  }

  // setsockopt(2) with one of the options of options.h. ENOPROTOOPT, EINVAL.
  template <class O>
  Result<void> set(O, const typename O::value_type& value) const noexcept {
    const typename O::Raw raw = O::Codec::encode(value);
    return detail::check_done(::setsockopt(get(), O::level, O::name, &raw, sizeof raw),
                              "setsockopt");
  }

  // getsockopt(2) with one of the options of options.h.
  template <class O>
  [[nodiscard]] Result<typename O::value_type> get_option(O) const noexcept {
    typename O::Raw raw{};
    socklen_t size = sizeof raw;
    if (::getsockopt(get(), O::level, O::name, &raw, &size) == -1) return Error::last("getsockopt");
    return O::Codec::decode(raw);
  }
};

static_assert(sizeof(Socket) == sizeof(int));

}  // namespace sock
