// Bug: a std::set makes the lines distinct and loses the order of getaddrinfo().
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cctype>
#include <iostream>
#include <set>
#include <string>

int usage() {
  std::cerr << "usage: resolve HOST SERVICE\n";
  return 2;
}

bool valid_service(const std::string& text) {
  if (!text.empty() && std::isalpha(static_cast<unsigned char>(text[0]))) return true;
  if (text.empty() || text.size() > 5) return false;
  if (text.find_first_not_of("0123456789") != std::string::npos) return false;
  return std::stoi(text) <= 65535;
}

std::string describe(const addrinfo& info) {
  char host[NI_MAXHOST];
  char service[NI_MAXSERV];
  getnameinfo(info.ai_addr, info.ai_addrlen, host, sizeof host, service, sizeof service,
              NI_NUMERICHOST | NI_NUMERICSERV);
  const std::string family = info.ai_family == AF_INET ? "inet" : "inet6";
  return family + ' ' + host + ' ' + service;
}

int main(int argc, char** argv) {
  if (argc != 3 || !valid_service(argv[2])) return usage();

  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (int error = getaddrinfo(argv[1], argv[2], &hints, &found); error != 0) {
    std::cerr << "resolve: getaddrinfo: " << gai_strerror(error) << '\n';
    return 1;
  }

  std::set<std::string> lines;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    lines.insert(describe(*info));
  }
  freeaddrinfo(found);
  for (const std::string& line : lines) std::cout << line << '\n';
}
