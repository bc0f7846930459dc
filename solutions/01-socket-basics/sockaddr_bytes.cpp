// sockaddr_bytes ADDRESS PORT - the port and the address as they lie in memory in a sockaddr.
//
// Both are in network byte order (big-endian) on every machine, because the kernel copies them into
// packets as they are: ip(7), ipv6(7).

#include <netinet/in.h>

#include <cstddef>
#include <iostream>
#include <span>

#include "sock/address.h"
#include "sock/bytes.h"

namespace {

int usage() {
  std::cerr << "usage: sockaddr_bytes ADDRESS PORT\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return usage();
  const auto port = sock::parse_port(argv[2]);
  if (!port) return usage();
  const auto address = sock::SocketAddress::parse_host(argv[1], *port);
  if (!address) return usage();

  const std::span memory(reinterpret_cast<const std::byte*>(address->data()), address->size());
  const bool inet = address->family() == AF_INET;
  // The port lies at the same place in both structures, the address does not.
  const auto port_bytes = memory.subspan(offsetof(sockaddr_in, sin_port), sizeof(in_port_t));
  const auto address_bytes =
      inet ? memory.subspan(offsetof(sockaddr_in, sin_addr), sizeof(in_addr))
           : memory.subspan(offsetof(sockaddr_in6, sin6_addr), sizeof(in6_addr));
  std::cout << (inet ? "inet " : "inet6 ") << sock::hex(port_bytes) << ' '
            << sock::hex(address_bytes) << '\n';
  if (!std::cout.flush()) return sock::report("sockaddr_bytes", sock::Error::last("write"));
}
