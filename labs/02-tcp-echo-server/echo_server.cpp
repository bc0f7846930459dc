// echo_server HOST PORT - sends every byte back to the client it came from (RFC 862, TCP).
//
// Each TODO is one step of the handout. The calls are those of the manual pages: listener.accept()
// is accept(2), client.recv() is recv(2), and an error holds the errno of the call that failed.

#include <sys/socket.h>

#include <array>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string_view>
#include <vector>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/resolve.h"
#include "sock/socket.h"

namespace {

constexpr std::string_view kProgram = "echo_server";

// A number from 0 to 65535, or the name of a service, which begins with a letter.
bool is_port(std::string_view text) {
  return sock::parse_port(text) ||
         (!text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0);
}

// A socket that waits for clients at this address.
sock::Result<sock::Socket> open_listener(const sock::Endpoint& endpoint) {
  auto listener = sock::Socket::create(endpoint.address.family(), endpoint.type, endpoint.protocol);
  if (!listener) return listener;
  // TODO 1 (listen): this socket has no address and does not listen. Two calls are missing here,
  // and an option that must be set before them (restart).
  return listener;
}

// Talks to one client until it ends.
void serve(const sock::Socket& client) {
  std::array<std::byte, 4096> buffer;
  const auto received = client.recv(buffer);
  if (!received) return;
  const auto sent = client.send(std::span(buffer).first(*received));
  if (!sent) return;
  // TODO 2 (echo): one recv and one send are not a conversation. When is it over? And how many
  // bytes does one send take?
}

// Accepts one client after the other, for ever.
sock::Result<void> serve_all(const sock::Socket& listener) {
  while (true) {
    const auto client = listener.accept();
    if (!client) return client.error();  // TODO 4 (a long life): which errors end a server?
    serve(*client);
    // TODO 3 (many clients): until serve() returns, everyone else waits.
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fputs("usage: echo_server HOST PORT\n", stderr);
    return 2;
  }
  const auto endpoints = sock::resolve(argv[1], argv[2], AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  if (!endpoints) return sock::report(kProgram, endpoints.error());
  const auto listener = open_listener(endpoints->front());
  if (!listener) return sock::report(kProgram, listener.error());
  const auto served = serve_all(*listener);
  return sock::report(kProgram, served.error());
}
