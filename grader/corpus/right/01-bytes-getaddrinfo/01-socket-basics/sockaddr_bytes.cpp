// getaddrinfo with AI_NUMERICHOST builds the whole address; its bytes are copied out by offset.
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

bool is_port(const std::string& text) {
  if (text.empty()) return false;
  if (text.find_first_not_of("0123456789") == std::string::npos)
    return std::strtoul(text.c_str(), nullptr, 10) <= 65535;
  return std::isalpha(static_cast<unsigned char>(text[0])) != 0;
}

AddressList parse(const char* address, const char* port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (::getaddrinfo(address, port, &hints, &list) != 0) list = nullptr;
  return {list, &::freeaddrinfo};
}

// getaddrinfo also reads old forms such as 192.0.517, which are no dotted quads, and scopes.
bool is_plain(const addrinfo& entry, const std::string& text) {
  if (entry.ai_family == AF_INET6) return text.find('%') == std::string::npos;
  std::array<char, NI_MAXHOST> again;
  return ::getnameinfo(entry.ai_addr, entry.ai_addrlen, again.data(), again.size(), nullptr, 0,
                       NI_NUMERICHOST) == 0 &&
         text == again.data();
}

std::string hex(const sockaddr* address, std::size_t offset, std::size_t size) {
  std::array<unsigned char, sizeof(sockaddr_in6)> bytes;
  std::memcpy(bytes.data(), reinterpret_cast<const unsigned char*>(address) + offset, size);
  std::ostringstream text;
  text << std::hex << std::setfill('0');
  for (std::size_t i = 0; i < size; ++i) text << std::setw(2) << static_cast<unsigned>(bytes[i]);
  return text.str();
}

}  // namespace

int main(int argc, char** argv) {
  const auto list = argc == 3 && is_port(argv[2]) ? parse(argv[1], argv[2])
                                                  : AddressList(nullptr, &::freeaddrinfo);
  if (!list || !is_plain(*list, argv[1])) {
    std::cerr << "usage: sockaddr_bytes ADDRESS PORT\n";
    return 2;
  }
  const sockaddr* address = list->ai_addr;
  if (list->ai_family == AF_INET) {
    std::cout << "inet " << hex(address, offsetof(sockaddr_in, sin_port), 2) << ' '
              << hex(address, offsetof(sockaddr_in, sin_addr), 4) << '\n';
  } else {
    std::cout << "inet6 " << hex(address, offsetof(sockaddr_in6, sin6_port), 2) << ' '
              << hex(address, offsetof(sockaddr_in6, sin6_addr), 16) << '\n';
  }
  return 0;
}
