// greeting_server HOST PORT: sends a greeting to each client and ends the connection in order.
//
// The listening socket and the loop are given; they are the calls of endpoints.cpp. Do the TODOs in
// their order; after each of them run the checks of the program again.

#include <sys/socket.h>

#include <iostream>
#include <string_view>

#include "sock/address.h"
#include "sock/bytes.h"
#include "sock/error.h"
#include "sock/options.h"
#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/tcp.h"

namespace {

[[maybe_unused]] constexpr std::string_view kGreeting = "hello client";

sock::Result<sock::Socket> listen_at(const sock::SocketAddress& address) {
  auto listener = sock::Socket::create(address.family(), SOCK_STREAM);
  if (!listener) return listener;
  if (auto done = listener->set(sock::opt::reuse_address, true); !done) return done.error();
  if (auto done = listener->bind(address); !done) return done.error();
  if (auto done = listener->listen(); !done) return done.error();
  return listener;
}

// Serves one client. A failure here concerns this client only, so there is nothing to return.
void serve([[maybe_unused]] const sock::Socket& connection) {
  // TODO 1 (greeting-exact): send the bytes of kGreeting. sock::as_bytes (bytes.h) gives the view
  // that Socket::send takes; sock::send_all (stream.h) repeats the call until all are sent.

  // TODO 3 (greeting-speaks-first): when this function returns, the socket is closed. What happens
  // if the client has sent bytes that nobody has read? First end only your own direction
  // (shutdown(2)), then read until the client ends the other one.
}

}  // namespace

int main(int argc, char* argv[]) {
  // TODO 4 (greeting-bad-port): test PORT as endpoints.cpp does.
  if (argc != 3) {
    std::cerr << "usage: greeting_server HOST PORT\n";
    return 2;
  }
  const auto found = sock::resolve(argv[1], argv[2], AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  if (!found) return sock::report("greeting_server", found.error());
  const auto listener = listen_at(found->front().address);
  if (!listener) return sock::report("greeting_server", listener.error());

  while (true) {
    sock::SocketAddress client;
    const auto connection = listener->accept(&client);
    if (!connection) {
      // A client that has given up meanwhile is no reason to end.
      const auto action = sock::classify_accept_error(connection.error().code);
      if (action == sock::AcceptAction::retry) continue;
      return sock::report("greeting_server", connection.error());
    }
    // TODO 2 (greeting-from): print `connected from: ADDRESS:PORT` of this client.
    serve(*connection);
  }
}
