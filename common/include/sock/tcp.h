// tcp.h - TCP connections: the usual sequences of calls.
//
// Each function says which system calls it makes, in order. When you need another order or another
// option, make the calls yourself with socket.h; nothing here does more than that.
//
// It is not a server framework: there is no loop and no thread in it.
//
// Thread-safety: free functions without state.
//
// Example:
//   auto endpoints = sock::resolve("server.example", "7000");
//   auto connection = sock::tcp_connect(*endpoints, sock::Deadline::after(5s));

#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <span>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/wait.h"

namespace sock {

// A listening socket: socket, setsockopt(SO_REUSEADDR), setsockopt(IPV6_V6ONLY) for IPv6, bind,
// listen. SO_REUSEADDR lets a restarted server bind although connections of the one before are
// still in TIME_WAIT; it must be set before bind. It does not let two servers share a port (that is
// SO_REUSEPORT, which is never set here): the second gets EADDRINUSE. With `ipv6_only` false an
// IPv6 any-address takes IPv4 clients too, as addresses ::ffff:a.b.c.d.
inline Result<Socket> tcp_listen(const SocketAddress& address, int backlog = SOMAXCONN,
                                 bool ipv6_only = true) noexcept {
  auto socket = Socket::create(address.family(), SOCK_STREAM);
  if (!socket) return socket;
  if (auto done = socket->set(opt::reuse_address, true); !done) return done.error();
  if (address.family() == AF_INET6) {
    if (auto done = socket->set(opt::ipv6_only, ipv6_only); !done) return done.error();
  }
  if (auto done = socket->bind(address); !done) return done.error();
  if (auto done = socket->listen(backlog); !done) return done.error();
  return socket;
}

// How a connect that returned EINPROGRESS or EINTR ended: getsockopt(SO_ERROR), which also clears
// it, so ask once. Call it when poll(2) says POLLOUT; writable alone does not mean connected.
inline Result<void> finish_connect(const Socket& socket) noexcept {
  const auto pending = socket.get_option(opt::pending_error);
  if (!pending) return pending.error();
  if (*pending != 0) return Error{*pending, "connect"};
  return {};
}

// A connection to `address`: socket (non-blocking, so that the deadline holds), connect, poll,
// getsockopt(SO_ERROR), and two fcntl that make it blocking. ECONNREFUSED, ENETUNREACH, ETIMEDOUT
// (the deadline's or the kernel's, which gives up after about two minutes).
inline Result<Socket> tcp_connect(const SocketAddress& address,
                                  Deadline deadline = Deadline::never()) noexcept {
  auto socket = Socket::create(address.family(), SOCK_STREAM | SOCK_NONBLOCK);
  if (!socket) return socket;
  if (auto done = socket->connect(address); !done) {
    if (done.error() != EINPROGRESS && done.error() != EINTR) return done.error();
    const auto ready = wait_for(*socket, POLLOUT, deadline);
    if (!ready) return ready.error();
    if (*ready == 0) return Error{ETIMEDOUT, "connect"};
    if (auto finished = finish_connect(*socket); !finished) return finished.error();
  }
  if (auto done = socket->set_nonblocking(false); !done) return done.error();
  return socket;
}

// The first endpoint that accepts, tried in order with a new socket each (POSIX leaves the state
// of a socket open after a failed connect). When none does, the error of the last one.
inline Result<Socket> tcp_connect(std::span<const Endpoint> endpoints,
                                  Deadline deadline = Deadline::never()) noexcept {
  Error last{EADDRNOTAVAIL, "connect"};
  for (const Endpoint& endpoint : endpoints) {
    auto socket = tcp_connect(endpoint.address, deadline);
    if (socket) return socket;
    last = socket.error();
  }
  return last;
}

// What a server does after accept(2) failed.
enum class AcceptAction : std::uint8_t {
  wait,      // nothing there: wait until the listener is readable
  retry,     // this connection is lost, the next one may be fine
  back_off,  // no descriptors or memory: the connection stays queued and the listener readable, so
             // stop watching it until something was closed, or you spin
  stop,      // the listener itself is of no more use
};

// The errors of accept(2) by class. Linux also passes on network errors that arrived for the new
// connection; its manual says to treat them like EAGAIN by retrying. EINVAL means that the socket
// does not listen (any more): shutdown(2) of a listener is an orderly way to stop its thread.
constexpr AcceptAction classify_accept_error(int errno_value) noexcept {
  switch (errno_value) {
    case EAGAIN:
      return AcceptAction::wait;
    case EINTR:
    case ECONNABORTED:
    case EPERM:  // forbidden by a firewall rule
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
      return AcceptAction::retry;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return AcceptAction::back_off;
    default:
      return AcceptAction::stop;
  }
}

// The next connection of a blocking listener: accept4(2), again while the error is of the class
// retry. For one thread that has nothing else to do; an event loop calls Socket::accept itself.
inline Result<Socket> tcp_accept(const Socket& listener, SocketAddress* peer = nullptr,
                                 int flags = SOCK_CLOEXEC) noexcept {
  while (true) {
    auto connection = listener.accept(peer, flags);
    if (connection) return connection;
    if (classify_accept_error(connection.error().code) != AcceptAction::retry) return connection;
  }
}

}  // namespace sock
