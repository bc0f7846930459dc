// C++20 coroutines over epoll: each client is a coroutine that reads like a blocking program.
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <coroutine>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_set>
#include <vector>

namespace {

constexpr int kGraceMs = 500;
constexpr int kRetryMs = 1000;

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
// A coroutine that runs on its own and frees itself at its end.
struct Task {
  struct promise_type {
    Task get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

// Resumes coroutines when their descriptor is ready. One waits at most once at a time.
class Loop {
 public:
  struct Wait {
    Loop& loop;
    int fd;
    std::uint32_t events;
    bool optional;  // gives up when the program stops and nothing comes
    bool ready = false;
    std::coroutine_handle<> coroutine = nullptr;

    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      coroutine = handle;
      loop.add(*this);
    }
    bool await_resume() const { return ready; }
  };

  Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) fail("epoll_create1");
  }
  ~Loop() { ::close(epoll_); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // True when there is something to read or an end; false when the wait was given up.
  Wait readable(int fd) { return {*this, fd, EPOLLIN, true}; }
  Wait writable(int fd) { return {*this, fd, EPOLLOUT, false}; }
  // Resumed with false by the next end of a client, or a second later.
  Wait room() { return {*this, -1, 0, true}; }

  void client_ended() { resume_all_if([](const Wait& wait) { return wait.fd < 0; }); }

  void stop() {
    stopping_ = true;
    // Whoever accepts stops at once; clients get their grace in run().
    resume_all_if([this](const Wait& wait) { return wait.fd < 0 || wait.fd == listener; });
  }
  bool stopping() const { return stopping_; }

  void run() {
    std::array<epoll_event, 64> events;
    while (!waits_.empty()) {
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                                     patience());
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      if (count == 0) resume_all_if([this](const Wait& wait) { return wait.fd < 0 || stopping_; });
      for (int i = 0; i < count; ++i) {
        auto* wait = static_cast<Wait*>(events[static_cast<std::size_t>(i)].data.ptr);
        // An earlier coroutine of this round may have resumed it already.
        if (!waits_.contains(wait)) continue;
        wait->ready = true;
        resume(*wait);
      }
    }
  }

  int listener = -1;

 private:
  void add(Wait& wait) {
    waits_.insert(&wait);
    if (wait.fd < 0) return;
    epoll_event event{};
    event.events = wait.events | EPOLLONESHOT;
    event.data.ptr = &wait;
    if (::epoll_ctl(epoll_, EPOLL_CTL_MOD, wait.fd, &event) == 0) return;
    if (errno != ENOENT || ::epoll_ctl(epoll_, EPOLL_CTL_ADD, wait.fd, &event) < 0)
      fail("epoll_ctl");
  }

  void resume(Wait& wait) {
    waits_.erase(&wait);
    wait.coroutine.resume();
  }

  template <typename Condition>
  void resume_all_if(Condition condition) {
    std::vector<Wait*> chosen;
    for (Wait* wait : waits_)
      if (wait->optional && condition(*wait)) chosen.push_back(wait);
    for (Wait* wait : chosen)
      if (waits_.contains(wait)) resume(*wait);
  }

  int patience() const {
    if (stopping_) return kGraceMs;
    const bool waits_for_room = std::any_of(waits_.begin(), waits_.end(),
                                            [](const Wait* wait) { return wait->fd < 0; });
    return waits_for_room ? kRetryMs : -1;
  }

  int epoll_;
  bool stopping_ = false;
  std::unordered_set<Wait*> waits_;
};

Task serve(Loop& loop, int fd) {
  std::array<char, 16384> buffer;
  bool alive = true;
  while (alive && co_await loop.readable(fd)) {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) break;
    const char* next = buffer.data();
    const char* const end = next + got;
    while (alive && next < end) {
      const ssize_t sent =
          ::send(fd, next, static_cast<std::size_t>(end - next), MSG_NOSIGNAL);
      if (sent >= 0) {
        next += sent;
      } else if (errno == EAGAIN || errno == EINTR) {
        co_await loop.writable(fd);
      } else {
        alive = false;
      }
    }
  }
  ::close(fd);
  loop.client_ended();
}

Task accept_clients(Loop& loop, int listener) {
  while (!loop.stopping()) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      serve(loop, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      co_await loop.room();
    } else {
      co_await loop.readable(listener);
    }
  }
  ::close(listener);
}

Task stop_on_signal(Loop& loop, int signals) {
  co_await loop.readable(signals);
  ::close(signals);
  loop.stop();
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
  sigset_t terminate;
  ::sigemptyset(&terminate);
  ::sigaddset(&terminate, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &terminate, nullptr);
  const int signals = ::signalfd(-1, &terminate, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals < 0) fail("signalfd");
  Loop loop;
  loop.listener = listen_on(argv[1], argv[2]);
  stop_on_signal(loop, signals);
  accept_clients(loop, loop.listener);
  loop.run();
  return 0;
}
