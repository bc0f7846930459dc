// One detached thread per client.
#include <netdb.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

namespace {

constexpr auto kGrace = std::chrono::milliseconds(500);
constexpr auto kRetry = std::chrono::seconds(1);

[[noreturn]] void fail(const char* call, int error = errno) {
  std::fprintf(stderr, "echo_server: %s: %s\n", call, std::strerror(error));
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
    std::fprintf(stderr, "echo_server: getaddrinfo: %s\n", ::gai_strerror(status));
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
// How many threads serve a client now.
class Crowd {
 public:
  void enter() {
    const std::lock_guard lock(mutex_);
    ++count_;
  }
  void leave() {
    // Notified under the lock: main may end the program as soon as it sees the last one leave.
    const std::lock_guard lock(mutex_);
    --count_;
    changed_.notify_all();
  }
  void wait_until_empty() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return count_ == 0; });
  }
  void wait_for_leave() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kRetry, [this, before = count_] { return count_ < before; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

bool send_back(int fd, const char* data, std::size_t size) {
  ssize_t sent;
  do {
    sent = ::send(fd, data, size, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

// `stop` is a pipe that ends when the program was told to stop; then a client that stays silent
// for the grace period has got all it is owed.
void serve(int fd, int stop) {
  std::array<char, 16384> buffer;
  std::array<pollfd, 2> ready{{{fd, POLLIN, 0}, {stop, POLLIN, 0}}};
  bool stopping = false;
  for (;;) {
    const int count = stopping ? ::poll(ready.data(), 1, static_cast<int>(kGrace.count()))
                               : ::poll(ready.data(), 2, -1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    if (!stopping && ready[1].revents != 0) stopping = true;
    if (ready[0].revents == 0) continue;
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || !send_back(fd, buffer.data(), static_cast<std::size_t>(got))) return;
  }
}

int stop_writer = -1;

void on_terminate(int) { ::close(stop_writer); }

bool out_of_room(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  std::array<int, 2> stop{};
  if (::pipe(stop.data()) < 0) fail("pipe");
  stop_writer = stop[1];
  struct sigaction action {};
  action.sa_handler = on_terminate;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGTERM, &action, nullptr);

  const int listener = listen_on(argv[1], argv[2]);
  static Crowd crowd;
  std::array<pollfd, 2> ready{{{listener, POLLIN, 0}, {stop[0], POLLIN, 0}}};
  for (;;) {
    if (::poll(ready.data(), ready.size(), -1) < 0) continue;
    if (ready[1].revents != 0) break;
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      if (out_of_room(errno)) crowd.wait_for_leave();
      continue;
    }
    crowd.enter();
    try {
      std::thread([fd, reader = stop[0]] {
        serve(fd, reader);
        ::close(fd);
        crowd.leave();
      }).detach();
    } catch (const std::system_error& error) {
      std::fprintf(stderr, "echo_server: thread: %s\n", error.what());
      ::close(fd);
      crowd.leave();
    }
  }
  ::close(listener);
  crowd.wait_until_empty();
  return 0;
}
