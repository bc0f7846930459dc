// echo_client HOST PORT - sends standard input to the server and prints what comes back, until both
// are done.
//
// Each TODO is one step of the handout.

#include <sys/socket.h>

#include <cctype>
#include <cstdio>
#include <string_view>
#include <vector>

#include "sock/address.h"
#include "sock/error.h"
#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/tcp.h"

namespace {

constexpr std::string_view kProgram = "echo_client";

// A number from 0 to 65535, or the name of a service, which begins with a letter.
bool is_port(std::string_view text) {
  return sock::parse_port(text) ||
         (!text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0);
}

// Standard input to the server and the server's bytes to standard output, until both have ended.
sock::Result<void> talk(const sock::Socket& server) {
  // TODO 1 (echo): send what standard input says and print what comes back, any bytes.
  // TODO 2 (the byte stream): both directions at the same time. poll(2) says which one is ready.
  // TODO 3 (endings): the next line says "I will send no more". When is that true? And who says
  // when the conversation is over?
  return server.shutdown(SHUT_WR);
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fputs("usage: echo_client HOST PORT\n", stderr);
    return 2;
  }
  const auto endpoints = sock::resolve(argv[1], argv[2]);
  if (!endpoints) return sock::report(kProgram, endpoints.error());
  const auto server = sock::tcp_connect(*endpoints);
  if (!server) return sock::report(kProgram, server.error());
  const auto done = talk(*server);
  return done ? 0 : sock::report(kProgram, done.error());
}
