// Bug: the port is parsed with atoi() and never checked; 70000 becomes 4464.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

[[noreturn]] void fail(const std::string& call, const std::string& reason) {
  std::cerr << "greeting_client: " << call << ": " << reason << '\n';
  std::exit(1);
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
  if (argc != 3) {
    std::cerr << "usage: greeting_client HOST PORT\n";
    return 2;
  }
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[2]));
  const int fd = connect_to(argv[1], std::to_string(port).c_str());
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
