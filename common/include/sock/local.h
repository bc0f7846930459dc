// local.h - sockets between processes of one host (unix(7)).
//
// socketpair makes two connected sockets; send_fd and recv_fd pass an open descriptor to another
// process; peer_credentials says who the peer is, by the kernel's word.
//
// It is not about files: a bound path stays behind when the socket is closed, and unlink(2) is up
// to you. connect(2) to a UNIX socket whose backlog is full fails with EAGAIN, never EINPROGRESS,
// and poll(2) cannot wait for room.
//
// Thread-safety: free functions without state.
//
// Example:
//   auto pair = sock::socketpair(SOCK_STREAM);
//   if (pair) sock::send_fd(pair->first, file);
//   auto received = sock::recv_fd(pair->second);

#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/fd.h"
#include "sock/socket.h"

namespace sock {

// socketpair(2): two connected sockets without names. SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
// `flags` are added to the type. EMFILE.
inline Result<std::pair<Socket, Socket>> socketpair(int type, int flags = SOCK_CLOEXEC) noexcept {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, type | flags, 0, fds.data()) == -1) return Error::last("socketpair");
  return std::pair(Socket(fds[0]), Socket(fds[1]));
}

// A listening socket at a path or abstract name: socket, bind, listen. EADDRINUSE when the path
// exists, also when nobody listens there any more.
inline Result<Socket> local_listen(const SocketAddress& address, int backlog = SOMAXCONN) noexcept {
  auto socket = Socket::create(AF_UNIX, SOCK_STREAM);
  if (!socket) return socket;
  if (auto done = socket->bind(address); !done) return done.error();
  if (auto done = socket->listen(backlog); !done) return done.error();
  return socket;
}

// A connection to a path or abstract name: socket, connect. ENOENT, ECONNREFUSED (a path without a
// listener). Interrupted while it waits for room in the backlog, connect starts anew: EINTR.
inline Result<Socket> local_connect(const SocketAddress& address) noexcept {
  auto socket = Socket::create(AF_UNIX, SOCK_STREAM);
  if (!socket) return socket;
  if (auto done = socket->connect(address); !done) return done.error();
  return socket;
}

namespace detail {

// One byte of data with room for one descriptor beside it: SCM_RIGHTS needs a byte to travel with.
struct FdMessage {
  FdMessage() noexcept {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  FdMessage(const FdMessage&) = delete;
  FdMessage& operator=(const FdMessage&) = delete;

  std::byte byte{};
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
};

}  // namespace detail

// sendmsg(2) with `fd` in an SCM_RIGHTS message and one byte of data. The receiver gets a
// descriptor of its own; you may close yours at once.
inline Result<void> send_fd(const Socket& socket, const Fd& fd) noexcept {
  detail::FdMessage message;
  cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(control), &number, sizeof number);
  const auto sent = socket.sendmsg(message.header);
  if (!sent) return sent.error();
  return {};
}

// recvmsg(2) of what send_fd sent. ENOMSG when the message carried no descriptor, EPIPE at the end
// of the stream. A sender that passes several makes the kernel drop those without room.
inline Result<Fd> recv_fd(const Socket& socket) noexcept {
  detail::FdMessage message;
  const auto received = socket.recvmsg(message.header);
  if (!received) return received.error();
  if (*received == 0) return Error{EPIPE, "recvmsg"};
  const cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS ||
      control->cmsg_len != CMSG_LEN(sizeof(int))) {
    return Error{ENOMSG, "recvmsg"};
  }
  int number = -1;
  std::memcpy(&number, CMSG_DATA(control), sizeof number);
  return Fd(number);
}

// getsockopt(SO_PEERCRED): process, user and group of the peer when it connected (or made the
// socketpair), as the kernel knows them.
inline Result<ucred> peer_credentials(const Socket& socket) noexcept {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == -1) {
    return Error::last("getsockopt");
  }
  return credentials;
}

}  // namespace sock
