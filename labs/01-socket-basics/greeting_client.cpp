// greeting_client HOST PORT: connects and copies everything it receives to standard output.
//
// Finding the server and connecting to its first address are given. Do the TODOs in their order;
// after each of them run the checks of the program again.

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <iostream>

#include "sock/bytes.h"
#include "sock/error.h"
#include "sock/resolve.h"
#include "sock/socket.h"

namespace {

int fail(const sock::Error& error) { return sock::report("greeting_client", error); }

}  // namespace

int main(int argc, char* argv[]) {
  // TODO 4 (client-bad-port): test PORT as endpoints.cpp does.
  if (argc != 3) {
    std::cerr << "usage: greeting_client HOST PORT\n";
    return 2;
  }
  const auto found = sock::resolve(argv[1], argv[2]);
  if (!found) return fail(found.error());

  // TODO 3 (client-every-address): this is the first address of the name. When it refuses, try the
  // next one, with a new socket. When the list is at its end, report the last error.
  const sock::SocketAddress& server = found->front().address;
  const auto socket = sock::Socket::create(server.family(), SOCK_STREAM);
  if (!socket) return fail(socket.error());
  if (auto done = socket->connect(server); !done) return fail(done.error());

  // TODO 2 (client-reads-to-end): one recv(2) returns what has come so far. How does it say that
  // the server has ended the connection, and how that it is broken (client-reset)?
  std::array<std::byte, 4096> buffer{};
  const auto count = socket->recv(buffer);
  if (!count) return fail(count.error());

  // TODO 1 (client-prints): write the bytes to standard output: the first *count of the buffer, no
  // matter which values they have. sock::as_text (bytes.h) makes a view that std::cout can write.
}
