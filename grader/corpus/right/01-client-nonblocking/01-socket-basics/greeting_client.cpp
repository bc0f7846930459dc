// A non-blocking connect watched by poll, and the reason of its failure from SO_ERROR.
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

namespace {

[[noreturn]] void fail(const char* call, int error) {
  std::cerr << "greeting_client: " << call << ": " << std::strerror(error) << std::endl;
  std::exit(1);
}

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
bool is_port(const std::string& text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty()) return false;
  if (std::all_of(text.begin(), text.end(), is_digit))
    return std::strtoul(text.c_str(), nullptr, 10) <= 65535;
  return (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z');
}

void wait_for(int fd, short events) {
  pollfd ready{fd, events, 0};
  while (::poll(&ready, 1, -1) < 0)
    if (errno != EINTR) fail("poll", errno);
}

// 0, or the reason why there is no connection.
int try_connect(int fd, const addrinfo& address) {
  if (::connect(fd, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  wait_for(fd, POLLOUT);
  int error = 0;
  socklen_t size = sizeof error;
  // Reading SO_ERROR clears it: it is asked for once.
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
  return error;
}

int connect_to(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int status = ::getaddrinfo(host, port, &hints, &found); status != 0) {
    if (status == EAI_SYSTEM) fail("getaddrinfo", errno);
    std::cerr << "greeting_client: getaddrinfo: " << ::gai_strerror(status) << std::endl;
    std::exit(1);
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  const char* call = "socket";
  int error = 0;
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    const int type = a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const int fd = ::socket(a->ai_family, type, a->ai_protocol);
    if (fd < 0) {
      call = "socket";
      error = errno;
      continue;
    }
    call = "connect";
    error = try_connect(fd, *a);
    if (error == 0) return fd;
    ::close(fd);
  }
  fail(call, error);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::cerr << "usage: greeting_client HOST PORT\n";
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);  // for stdout
  const int fd = connect_to(argv[1], argv[2]);
  std::array<char, 16384> buffer;
  for (;;) {
    wait_for(fd, POLLIN);
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got == 0) break;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got < 0) fail("recv", errno);
    if (!std::cout.write(buffer.data(), got).flush()) fail("write", errno);
  }
  ::close(fd);
  return 0;
}
