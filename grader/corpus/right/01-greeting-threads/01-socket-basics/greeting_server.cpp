// One detached thread per client.
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

namespace {

constexpr std::string_view kGreeting = "hello client";

[[noreturn]] void fail(const char* call, int error = errno) {
  std::fprintf(stderr, "greeting_server: %s: %s\n", call, std::strerror(error));
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
    std::fprintf(stderr, "greeting_server: getaddrinfo: %s\n", ::gai_strerror(status));
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
std::mutex mutex;
std::condition_variable one_left;
int running = 0;

// Closing with unread bytes would send RST: they are read first, for two seconds of silence or a
// mebibyte at most.
void drain(int fd) {
  const timeval patience{2, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::array<char, 4096> dropped;
  for (int rounds = 0; rounds < 256; ++rounds) {
    const ssize_t got = ::recv(fd, dropped.data(), dropped.size(), 0);
    if (got == 0 || (got < 0 && errno != EINTR)) return;
  }
}

void greet(int fd) {
  std::string_view left = kGreeting;
  while (!left.empty()) {
    const ssize_t sent = ::send(fd, left.data(), left.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return;
    left.remove_prefix(static_cast<std::size_t>(sent));
  }
  ::shutdown(fd, SHUT_WR);
  drain(fd);
}

void print_peer(const sockaddr_storage& peer, socklen_t size) {
  std::array<char, NI_MAXHOST> host;
  std::array<char, NI_MAXSERV> port;
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&peer), size, host.data(), host.size(),
                    port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
    std::cout << "connected from: " << host.data() << ':' << port.data() << std::endl;
}

void leave() {
  // Notified under the lock: main may end the program as soon as it sees the last one leave.
  const std::lock_guard lock(mutex);
  --running;
  one_left.notify_all();
}

void start(int fd) {
  {
    const std::lock_guard lock(mutex);
    ++running;
  }
  try {
    std::thread([fd] {
      greet(fd);
      ::close(fd);
      leave();
    }).detach();
  } catch (const std::system_error& error) {
    std::cerr << "greeting_server: thread: " << error.what() << std::endl;
    ::close(fd);
    leave();
  }
}

int stop_writer = -1;
void on_terminate(int) { ::close(stop_writer); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: greeting_server HOST PORT\n");
    return 2;
  }
  std::array<int, 2> stop{};
  if (::pipe(stop.data()) < 0) fail("pipe");
  stop_writer = stop[1];
  struct sigaction action {};
  action.sa_handler = on_terminate;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGTERM, &action, nullptr);

  const int listener = listen_on(argv[1], argv[2]);
  std::array<pollfd, 2> ready{{{listener, POLLIN, 0}, {stop[0], POLLIN, 0}}};
  for (;;) {
    if (::poll(ready.data(), ready.size(), -1) < 0) continue;
    if (ready[1].revents != 0) break;
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int fd = ::accept(listener, reinterpret_cast<sockaddr*>(&peer), &size);
    if (fd >= 0) {
      print_peer(peer, size);
      start(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      std::unique_lock lock(mutex);
      one_left.wait_for(lock, std::chrono::seconds(1));
    }
  }
  ::close(listener);
  std::unique_lock lock(mutex);
  one_left.wait(lock, [] { return running == 0; });
  return 0;
}
