// echo_server HOST PORT: sends every byte back to the client it came from (RFC 862, TCP).
//
// The beginning works, and each step after it is too simple. Do the TODOs in their order; after
// each of them run the checks of its stage again.

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <iostream>
#include <span>

#include "sock/error.h"
#include "sock/options.h"
#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

sock::Result<sock::Socket> listen_at(const sock::SocketAddress& address) {
  auto listener = sock::Socket::create(address.family(), SOCK_STREAM);
  if (!listener) return listener;
  // TODO 1 (listens, port-taken, backlog, restart): this socket has no address, and nobody can
  // connect to it. Two calls are missing, and an option that has to be set before them.
  return listener;
}

// Talks to one client. When this function returns, the caller closes the connection.
void serve(const sock::Socket& client) {
  std::array<std::byte, 4096> buffer;
  // TODO 2 (echo-line, echo-sizes): one recv and one send are not a conversation. When is it over?
  // And how many bytes does one send take? sock::send_all (stream.h) may help, for now.
  const auto received = client.recv(buffer);
  if (!received) return;
  static_cast<void>(client.send(std::span(buffer).first(*received)));
}

// Serves clients until the program is killed; returns only when that has become impossible.
sock::Error serve_all(const sock::Socket& listener) {
  while (true) {
    const auto client = listener.accept();
    // TODO 4 (descriptor-limit, limit-no-spin): which of accept's errors end a server? See
    // sock::classify_accept_error (tcp.h).
    if (!client) return client.error();
    // TODO 3 (last-opened-first, slow-reader): until serve returns, everybody else waits. Choose a
    // process or a thread for each client, or one loop around poll(2) or epoll(7).
    serve(*client);
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !sock::is_service(argv[2])) {
    std::cerr << "usage: echo_server HOST PORT\n";
    return 2;
  }
  const auto found = sock::resolve(argv[1], argv[2], AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  if (!found) return sock::report("echo_server", found.error());
  const auto listener = listen_at(found->front().address);
  if (!listener) return sock::report("echo_server", listener.error());
  return sock::report("echo_server", serve_all(*listener));
}
