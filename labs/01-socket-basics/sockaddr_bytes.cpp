// sockaddr_bytes ADDRESS PORT: prints a numeric address as the bytes that lie in its sockaddr.
//
// Reading the arguments and printing are given. Do the TODOs in their order; after each of them
// run the checks of the stage "bytes of an address" again.

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string_view>

#include "sock/address.h"
#include "sock/bytes.h"

namespace {

int usage() {
  std::cerr << "usage: sockaddr_bytes ADDRESS PORT\n";
  return 2;
}

void print(std::string_view family, const in_port_t& port, std::span<const std::byte> address) {
  std::cout << family << ' ' << sock::hex(std::as_bytes(std::span(&port, 1))) << ' '
            << sock::hex(address) << '\n';
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3) return usage();

  // TODO 4 (bytes-bad-port): atoi(3) takes "80x" for 80 and has no answer for 70000. Take only a
  // text that is a port number and nothing else. What does sock::parse_port (address.h) return?
  const auto port = static_cast<in_port_t>(std::atoi(argv[2]));

  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  // TODO 1 (bytes-inet): the field is in network byte order, `port` is in that of your machine.
  v4.sin_port = port;
  // TODO 3 (bytes-bad-address): the return value says whether the text was an address of this
  // family. Use it.
  ::inet_pton(AF_INET, argv[1], &v4.sin_addr);
  print("inet", v4.sin_port, std::as_bytes(std::span(&v4.sin_addr, 1)));

  // TODO 2 (bytes-inet6): when the text was no IPv4 address, try the other family: sockaddr_in6,
  // AF_INET6, and the word "inet6". See ipv6(7) for the names of the fields.
}
