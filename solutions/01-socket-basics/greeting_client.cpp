// greeting_client HOST PORT - connects to the first address that answers and prints what it says.

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <iostream>
#include <span>

#include "sock/resolve.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

int usage() {
  std::cerr << "usage: greeting_client HOST PORT\n";
  return 2;
}

sock::Result<void> run(const char* host, const char* port) {
  const auto endpoints = sock::resolve(host, port);
  if (!endpoints) return endpoints.error();
  const auto connection = sock::tcp_connect(*endpoints);
  if (!connection) return connection.error();

  const sock::Fd out(STDOUT_FILENO);
  std::array<std::byte, 4096> buffer;
  while (true) {
    // One recv is not one message: the end of the stream is the only end there is.
    const auto count = sock::recv_at_least(*connection, buffer, 1);
    if (!count) return count.error();
    if (*count == 0) return {};
    const auto written = sock::write_all(out, std::span(buffer).first(*count));
    if (!written) return written;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  std::signal(SIGPIPE, SIG_IGN);  // a closed standard output is an error to report, no death
  const auto done = run(argv[1], argv[2]);
  if (!done) return sock::report("greeting_client", done.error());
}
