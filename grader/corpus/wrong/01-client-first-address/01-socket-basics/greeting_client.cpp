// Bug: tries only the first address of the name.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

[[noreturn]] void fail(const std::string& call, const std::string& reason) {
  std::cerr << "greeting_client: " << call << ": " << reason << '\n';
  std::exit(1);
}

bool valid_port(const std::string& text) {
  if (!text.empty() && std::isalpha(static_cast<unsigned char>(text[0]))) return true;
  if (text.empty() || text.size() > 5) return false;
  if (text.find_first_not_of("0123456789") != std::string::npos) return false;
  return std::stoi(text) <= 65535;
}

int connect_to(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (int error = getaddrinfo(host, port, &hints, &list); error != 0) {
    fail("getaddrinfo", gai_strerror(error));
  }

  const int fd = socket(list->ai_family, list->ai_socktype, 0);
  if (fd == -1) fail("socket", std::strerror(errno));
  if (connect(fd, list->ai_addr, list->ai_addrlen) == -1) {
    fail("connect", std::strerror(errno));
  }
  freeaddrinfo(list);
  return fd;
}

int main(int argc, char** argv) {
  if (argc != 3 || !valid_port(argv[2])) {
    std::cerr << "usage: greeting_client HOST PORT\n";
    return 2;
  }
  const int fd = connect_to(argv[1], argv[2]);
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1) fail("recv", std::strerror(errno));
    if (n == 0) break;
    std::cout.write(buffer.data(), n).flush();
  }
  close(fd);
}
