// One thread, level-triggered epoll, the signal as one more descriptor.
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>

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
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

class Client {
 public:
  explicit Client(int fd) : fd_(fd) {}

  // At most one recv and one send; false when the connection has ended, in order or not.
  bool step() {
    if (!owes()) {
      const ssize_t got = ::recv(fd_.get(), buffer_.data(), buffer_.size(), 0);
      if (got == 0) return false;
      if (got < 0) return errno == EAGAIN || errno == EINTR;
      begin_ = 0;
      end_ = static_cast<std::size_t>(got);
    }
    const ssize_t sent =
        ::send(fd_.get(), buffer_.data() + begin_, end_ - begin_, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    begin_ += static_cast<std::size_t>(sent);
    return true;
  }

  bool owes() const { return begin_ < end_; }
  std::uint32_t wanted() const { return owes() ? EPOLLOUT : EPOLLIN; }

 private:
  Descriptor fd_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::array<char, 16384> buffer_;
};

class Server {
 public:
  Server(int listener, int signals)
      : epoll_(::epoll_create1(EPOLL_CLOEXEC)), listener_(listener), signals_(signals) {
    if (epoll_.get() < 0) fail("epoll_create1");
    control(EPOLL_CTL_ADD, signals_, EPOLLIN);
    control(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  void run() {
    std::array<epoll_event, 64> events;
    while (!stopping_ || !clients_.empty()) {
      const int timeout = stopping_ ? kGraceMs : accepting_ ? -1 : kRetryMs;
      const int count =
          ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      if (count == 0 && stopping_) end_silent();
      if (count == 0) accept_from_now_on();
      bool told_to_stop = false;
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == signals_) {
          told_to_stop = true;
        } else if (fd == listener_) {
          begin();
        } else {
          serve(fd);
        }
      }
      if (told_to_stop) stop();
    }
  }

 private:
  void control(int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), operation, fd, &event) < 0) fail("epoll_ctl");
  }

  void begin() {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      clients_.emplace(fd, std::make_unique<Client>(fd));
      control(EPOLL_CTL_ADD, fd, EPOLLIN);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The queue stays readable; listening to it again makes sense when a client has ended.
      control(EPOLL_CTL_MOD, listener_, 0);
      accepting_ = false;
    }
  }

  void accept_from_now_on() {
    if (accepting_ || stopping_) return;
    control(EPOLL_CTL_MOD, listener_, EPOLLIN);
    accepting_ = true;
  }

  void serve(int fd) {
    const auto found = clients_.find(fd);
    Client& client = *found->second;
    const std::uint32_t before = client.wanted();
    if (!client.step()) {
      clients_.erase(found);
      accept_from_now_on();
    } else if (client.wanted() != before) {
      control(EPOLL_CTL_MOD, fd, client.wanted());
    }
  }

  void stop() {
    ::close(signals_);
    ::close(listener_);
    stopping_ = true;
  }

  // Nobody sent anything during the grace period: whoever is owed nothing has ended.
  void end_silent() {
    std::erase_if(clients_, [](const auto& entry) { return !entry.second->owes(); });
  }

  Descriptor epoll_;
  int listener_;
  int signals_;
  bool accepting_ = true;
  bool stopping_ = false;
  std::unordered_map<int, std::unique_ptr<Client>> clients_;
};

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
  Server(listen_on(argv[1], argv[2]), signals).run();
  return 0;
}
