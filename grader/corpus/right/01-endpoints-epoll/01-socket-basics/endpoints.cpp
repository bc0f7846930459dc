// Non-blocking and driven by epoll; the peer's address is the one that accept4 gives.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

namespace {

[[noreturn]] void fail(const char* call, int error = errno) {
  std::fprintf(stderr, "endpoints: %s: %s\n", call, std::strerror(error));
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

// getaddrinfo, then socket, setsockopt, bind and listen on the first address that takes them all.
int listen_on(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int status = ::getaddrinfo(host, port, &hints, &list); status != 0) {
    if (status == EAI_SYSTEM) fail("getaddrinfo");
    std::fprintf(stderr, "endpoints: getaddrinfo: %s\n", ::gai_strerror(status));
    std::exit(1);
  }
  const char* call = "";
  int reason = 0;
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    const int type = a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const int fd = ::socket(a->ai_family, type, a->ai_protocol);
    const int on = 1;
    if (fd < 0) {
      call = "socket";
    } else if (::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) {
      call = "setsockopt";
    } else if (::bind(fd, a->ai_addr, a->ai_addrlen) < 0) {
      call = "bind";
    } else if (::listen(fd, SOMAXCONN) < 0) {
      call = "listen";
    } else {
      ::freeaddrinfo(list);
      return fd;
    }
    reason = errno;
    if (fd >= 0) ::close(fd);
  }
  ::freeaddrinfo(list);
  fail(call, reason);
}
std::string text_of(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> host;
  if (address.ss_family == AF_INET) {
    sockaddr_in inet;
    std::memcpy(&inet, &address, sizeof inet);
    ::inet_ntop(AF_INET, &inet.sin_addr, host.data(), host.size());
    return std::string(host.data()) + ' ' + std::to_string(ntohs(inet.sin_port));
  }
  sockaddr_in6 inet6;
  std::memcpy(&inet6, &address, sizeof inet6);
  ::inet_ntop(AF_INET6, &inet6.sin6_addr, host.data(), host.size());
  return std::string(host.data()) + ' ' + std::to_string(ntohs(inet6.sin6_port));
}

std::string local_text(int fd) {
  sockaddr_storage address;
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0) fail("getsockname");
  return text_of(address);
}

void wait_until_readable(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  if (::epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0 &&
      (errno != ENOENT || ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0))
    fail("epoll_ctl");
  while (::epoll_wait(epoll, &event, 1, -1) < 0)
    if (errno != EINTR) fail("epoll_wait");
}

bool again(int error) { return error == EAGAIN || error == EINTR || error == ECONNABORTED; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: endpoints HOST PORT\n");
    return 2;
  }
  const int listener = listen_on(argv[1], argv[2]);
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("epoll_create1");
  std::cout << "listening " << local_text(listener) << std::endl;

  sockaddr_storage peer;
  int connection = -1;
  while (connection < 0) {
    wait_until_readable(epoll, listener);
    socklen_t size = sizeof peer;
    connection = ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0 && !again(errno)) fail("accept4");
  }
  ::close(listener);
  std::cout << "local " << local_text(connection) << std::endl;
  std::cout << "peer " << text_of(peer) << std::endl;

  for (ssize_t got = -1; got != 0;) {
    wait_until_readable(epoll, connection);
    std::array<char, 256> dropped;
    got = ::recv(connection, dropped.data(), dropped.size(), 0);
    if (got < 0 && !again(errno)) fail("recv");
  }
  ::close(connection);
  ::close(epoll);
  return 0;
}
