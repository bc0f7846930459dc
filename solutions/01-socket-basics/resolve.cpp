// resolve HOST SERVICE - every address of a name, in the order in which a client should try them.

#include <algorithm>
#include <iostream>
#include <vector>

#include "sock/resolve.h"

namespace {

int usage() {
  std::cerr << "usage: resolve HOST SERVICE\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  const auto endpoints = sock::resolve(argv[1], argv[2]);
  if (!endpoints) return sock::report("resolve", endpoints.error());

  std::vector<sock::SocketAddress> printed;
  for (const auto& [address, type, protocol] : *endpoints) {
    // A hosts file or a name server may give the same address twice.
    if (std::find(printed.begin(), printed.end(), address) != printed.end()) continue;
    printed.push_back(address);
    std::cout << (address.family() == AF_INET ? "inet " : "inet6 ") << address.host() << ' '
              << address.port() << '\n';
  }
  if (!std::cout.flush()) return sock::report("resolve", sock::Error::last("write"));
}
