// echo_client HOST PORT: sends its standard input to the server and prints what comes back, until
// both are done.
//
// The way to the server is given (lab 01 was about it). Do the TODOs in their order; after each of
// them run the checks of this program again.

#include <sys/socket.h>

#include <iostream>

#include "sock/error.h"
#include "sock/resolve.h"
#include "sock/socket.h"
#include "sock/tcp.h"

namespace {

sock::Result<void> talk(const sock::Socket& server) {
  // TODO 1 (client-echo, client-bytes): send what standard input brings, and print what comes back.
  // sock::Fd (fd.h) has read and write; 0 is standard input and 1 is standard output.

  // TODO 2 (client-large, client-interactive): do both at the same time. poll(2) says where there
  // is something to do; no call may wait while the other direction could go on.

  // TODO 3 (client-half-close, client-reset): the next line tells the server that nothing more will
  // be sent. When is that true? And which event ends the whole conversation?
  return server.shutdown(SHUT_WR);
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !sock::is_service(argv[2])) {
    std::cerr << "usage: echo_client HOST PORT\n";
    return 2;
  }
  const auto found = sock::resolve(argv[1], argv[2]);
  if (!found) return sock::report("echo_client", found.error());
  const auto server = sock::tcp_connect(*found);
  if (!server) return sock::report("echo_client", server.error());
  const auto done = talk(*server);
  return done ? 0 : sock::report("echo_client", done.error());
}
