// Bug: a shorter piece after a longer one is printed with the old bytes behind it.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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

  std::string call;
  int reason = 0;
  int connected = -1;
  for (const addrinfo* info = list; info != nullptr; info = info->ai_next) {
    const int fd = socket(info->ai_family, info->ai_socktype, 0);
    if (fd == -1) {
      call = "socket";
      reason = errno;
      continue;
    }
    if (connect(fd, info->ai_addr, info->ai_addrlen) == 0) {
      connected = fd;
      break;
    }
    call = "connect";
    reason = errno;
    close(fd);
  }
  freeaddrinfo(list);
  if (connected == -1) fail(call, std::strerror(reason));
  return connected;
}

int main(int argc, char** argv) {
  if (argc != 3 || !valid_port(argv[2])) {
    std::cerr << "usage: greeting_client HOST PORT\n";
    return 2;
  }
  const int fd = connect_to(argv[1], argv[2]);
  std::array<char, 4096> buffer;
  ssize_t filled = 0;
  while (true) {
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1) fail("recv", std::strerror(errno));
    if (n == 0) break;
    filled = std::max(filled, n);
    std::cout.write(buffer.data(), filled).flush();
  }
  close(fd);
}
