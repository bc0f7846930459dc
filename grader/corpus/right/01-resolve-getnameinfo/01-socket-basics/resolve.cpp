// getnameinfo turns each address back into text, so no code here knows the families' structures.
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <set>
#include <string>

namespace {

bool is_port(const std::string& text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty()) return false;
  if (std::all_of(text.begin(), text.end(), is_digit))
    return std::strtoul(text.c_str(), nullptr, 10) <= 65535;
  return (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z');
}

int report(const char* call, int status) {
  const char* reason = status == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(status);
  std::cerr << "resolve: " << call << ": " << reason << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::cerr << "usage: resolve HOST SERVICE\n";
    return 2;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int status = ::getaddrinfo(argv[1], argv[2], &hints, &list); status != 0)
    return report("getaddrinfo", status);
  std::set<std::string> printed;
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    std::array<char, NI_MAXHOST> host;
    std::array<char, NI_MAXSERV> port;
    const int status = ::getnameinfo(a->ai_addr, a->ai_addrlen, host.data(), host.size(),
                                     port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
    if (status != 0) return report("getnameinfo", status);
    const std::string line = std::string(a->ai_family == AF_INET6 ? "inet6 " : "inet ") +
                             host.data() + ' ' + port.data();
    if (printed.insert(line).second) std::cout << line << std::endl;
  }
  ::freeaddrinfo(list);
  return 0;
}
