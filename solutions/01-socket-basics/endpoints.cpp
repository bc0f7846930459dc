// endpoints HOST PORT - one connection, seen from both ends.
//
// A TCP connection is named by two addresses and two ports. The listening socket has one of the
// ends; the socket that accept(2) makes has both.

#include <array>
#include <cstddef>
#include <iostream>
#include <string_view>

#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

int usage() {
  std::cerr << "usage: endpoints HOST PORT\n";
  return 2;
}

// std::endl flushes: whoever reads a pipe sees the line while we wait for the next event.
void print(std::string_view what, const sock::SocketAddress& address) {
  std::cout << what << ' ' << address.host() << ' ' << address.port() << std::endl;
}

// socket, setsockopt, bind, listen: the four steps to a listening socket, one call each.
sock::Result<sock::Socket> listen_at(const sock::SocketAddress& address) {
  auto socket = sock::Socket::create(address.family(), SOCK_STREAM);
  if (!socket) return socket;
  if (auto done = socket->set(sock::opt::reuse_address, true); !done) return done.error();
  if (auto done = socket->bind(address); !done) return done.error();
  if (auto done = socket->listen(); !done) return done.error();
  return socket;
}

sock::Result<void> run(const sock::SocketAddress& address) {
  const auto listener = listen_at(address);
  if (!listener) return listener.error();
  // Not argv: with port 0 only the kernel knows which one it picked.
  const auto listening = listener->local_address();
  if (!listening) return listening.error();
  print("listening", *listening);

  sock::SocketAddress peer;
  const auto connection = sock::tcp_accept(*listener, &peer);
  if (!connection) return connection.error();
  const auto local = connection->local_address();
  if (!local) return local.error();
  print("local", *local);
  print("peer", peer);

  std::array<std::byte, 4096> buffer;
  while (true) {
    const auto count = sock::recv_at_least(*connection, buffer, 1);
    if (!count) return count.error();
    if (*count == 0) return {};
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  const auto endpoints = sock::resolve(argv[1], argv[2]);
  if (!endpoints) return sock::report("endpoints", endpoints.error());
  const auto done = run(endpoints->front().address);
  if (!done) return sock::report("endpoints", done.error());
}
