// Bug: asks for IPv4 addresses only.
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <iostream>
#include <string>
#include <vector>

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
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (int error = getaddrinfo(argv[1], argv[2], &hints, &found); error != 0) {
    std::cerr << "resolve: getaddrinfo: " << gai_strerror(error) << '\n';
    return 1;
  }

  std::vector<std::string> lines;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    const std::string line = describe(*info);
    if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
  }
  freeaddrinfo(found);
  for (const std::string& line : lines) std::cout << line << '\n';
}
