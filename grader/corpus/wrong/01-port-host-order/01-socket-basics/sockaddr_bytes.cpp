// Bug: the port is stored as the machine keeps it, without htons().
#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>

[[noreturn]] void usage() {
  std::cerr << "usage: sockaddr_bytes ADDRESS PORT\n";
  std::exit(2);
}

std::uint16_t parse_port(const std::string& text) {
  std::uint16_t port = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, port);
  if (error != std::errc() || stop != end) usage();
  return port;
}

template <typename T>
std::string hex(const T& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
  std::ostringstream out;
  out << std::hex << std::setfill('0');
  for (std::size_t i = 0; i < sizeof value; ++i) out << std::setw(2) << int{bytes[i]};
  return out.str();
}

int main(int argc, char** argv) {
  if (argc != 3) usage();
  const std::uint16_t port = parse_port(argv[2]);

  sockaddr_in in{};
  sockaddr_in6 in6{};
  if (inet_pton(AF_INET, argv[1], &in.sin_addr) == 1) {
    in.sin_family = AF_INET;
    in.sin_port = port;
    std::cout << "inet " << hex(in.sin_port) << ' ' << hex(in.sin_addr) << '\n';
  } else if (inet_pton(AF_INET6, argv[1], &in6.sin6_addr) == 1) {
    in6.sin6_family = AF_INET6;
    in6.sin6_port = port;
    std::cout << "inet6 " << hex(in6.sin6_port) << ' ' << hex(in6.sin6_addr) << '\n';
  } else {
    usage();
  }
}
