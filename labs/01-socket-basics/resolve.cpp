// resolve HOST SERVICE: prints every address that getaddrinfo(3) gives for a name and a service.
//
// So far it shows one numeric IPv4 address. Do the TODOs in their order; after each of them run the
// checks of the stage "names" again.

#include <netdb.h>
#include <sys/socket.h>

#include <iostream>

#include "sock/address.h"
#include "sock/error.h"

namespace {

void print(const addrinfo& entry) {
  const sock::SocketAddress address(entry.ai_addr, entry.ai_addrlen);
  std::cout << (entry.ai_family == AF_INET6 ? "inet6 " : "inet ") << address.host() << ' '
            << address.port() << '\n';
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3) {
    std::cerr << "usage: resolve HOST SERVICE\n";
    return 2;
  }

  addrinfo hints{};
  // TODO 1 (resolve-hosts-file, resolve-dns): this flag forbids names. Nothing is looked up.
  hints.ai_flags = AI_NUMERICHOST;
  // TODO 4 (resolve-both-families): which value of the family stands for "any"?
  hints.ai_family = AF_INET;
  // TODO 3 (resolve-distinct): what else do the hints have to say, so that no address comes twice?

  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(argv[1], argv[2], &hints, &list);
  // TODO 5 (resolve-unknown): getaddrinfo does not put its reason into errno. Which function turns
  // `code` into text? sock::Error can hold such a code too, see Domain::gai in error.h.
  if (code != 0) return sock::report("resolve", sock::Error::last("getaddrinfo"));

  // TODO 2 (resolve-all): this is the first entry of a list.
  print(*list);
  ::freeaddrinfo(list);
}
