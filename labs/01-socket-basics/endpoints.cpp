// endpoints HOST PORT: accepts one connection and prints the addresses of its two ends.
//
// The arguments, the look-up of HOST and the test of each call are given. Do the TODOs in their
// order; after each of them run the checks of the program again.

#include <sys/socket.h>

#include <cctype>
#include <iostream>
#include <string_view>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/options.h"
#include "sock/resolve.h"
#include "sock/socket.h"

namespace {

int fail(const sock::Error& error) { return sock::report("endpoints", error); }

// A number from 0 to 65535, or the name of a service, which begins with a letter.
bool is_port(std::string_view text) {
  const bool name = !text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0;
  return name || sock::parse_port(text);
}

void print(std::string_view what, const sock::SocketAddress& address) {
  // TODO 3 (endpoints-flushed): into a pipe, this line goes on its way only when the program ends.
  std::cout << what << ' ' << address.host() << ' ' << address.port() << '\n';
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !is_port(argv[2])) {
    std::cerr << "usage: endpoints HOST PORT\n";
    return 2;
  }
  const auto found = sock::resolve(argv[1], argv[2], AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  if (!found) return fail(found.error());
  const sock::SocketAddress& address = found->front().address;

  // create
  const auto listener = sock::Socket::create(address.family(), SOCK_STREAM);
  if (!listener) return fail(listener.error());
  // Without this option a server cannot be started again for a minute; lab 02 shows why.
  if (auto done = listener->set(sock::opt::reuse_address, true); !done) return fail(done.error());

  // bind
  if (auto done = listener->bind(address); !done) return fail(done.error());

  // listen
  // TODO 1 (endpoints-listening): a socket with an address takes no connections yet. Which call is
  // missing here?

  // TODO 2 (endpoints-ephemeral): for PORT 0 the kernel has picked a port. Only the socket knows
  // it: see Socket::local_address, which is getsockname(2).
  print("listening", address);

  // accept
  const auto connection = listener->accept();
  if (!connection) return fail(connection.error());

  // TODO 4 (endpoints-both-ends): print `local ADDRESS PORT` and `peer ADDRESS PORT` of the
  // connection. Which of the two sockets knows them?

  // TODO 5 (endpoints-waits): stay until the client ends the connection. What does recv(2) return
  // then, and what does it return for bytes that the client sends before?
}
