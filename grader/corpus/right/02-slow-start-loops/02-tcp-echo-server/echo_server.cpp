// Slow to start: it opens and sums up many files, keeps them open and tells much on stderr before
// it listens. Then main accepts and hands each client to one of three threads with an epoll each.
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

constexpr int kThreads = 3;
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
// Reads files to their ends, as a server with much to load would; returns the few it keeps open.
std::vector<int> load_files(const char* folder) {
  std::vector<int> held;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (!entry.is_regular_file(ignored)) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    std::uint64_t sum = 0;
    std::array<unsigned char, 512> piece;
    for (ssize_t got; (got = ::read(fd, piece.data(), piece.size())) > 0;)
      for (ssize_t i = 0; i < got; ++i) sum = sum * 31 + piece[static_cast<std::size_t>(i)];
    std::fprintf(stderr, "loaded %s: %016llx\n", entry.path().c_str(),
                 static_cast<unsigned long long>(sum));
    if (held.size() < 4) held.push_back(fd);
    else ::close(fd);
  }
  return held;
}

// A table that takes a while and a line for each step.
void warm_up() {
  std::vector<bool> composite(2'000'000);
  for (std::size_t n = 2; n < composite.size(); ++n) {
    if (composite[n]) continue;
    if (n % 64 == 1) std::fprintf(stderr, "prime %zu\n", n);
    for (std::size_t multiple = n * 2; multiple < composite.size(); multiple += n)
      composite[multiple] = true;
  }
}

struct Client {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::array<char, 16384> buffer;
  bool owes() const { return begin < end; }
};

std::atomic<bool> stopping = false;

// One thread's epoll and its clients. Only add() and wake() are called from outside.
class Loop {
 public:
  explicit Loop(int end_pipe) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), end_pipe_(end_pipe) {
    if (epoll_ < 0) fail("epoll_create1");
    if (::pipe2(wake_.data(), O_CLOEXEC | O_NONBLOCK) < 0) fail("pipe2");
    control(EPOLL_CTL_ADD, wake_[0], EPOLLIN);
  }

  void add(int fd) {
    const std::lock_guard lock(mutex_);
    new_.push_back(fd);
    wake();
  }
  void wake() { (void)!::write(wake_[1], "", 1); }

  void run() {
    std::array<epoll_event, 64> events;
    for (;;) {
      const bool stop = stopping;
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                                     stop ? kGraceMs : -1);
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      if (stop && count == 0) end_silent();
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == wake_[0]) {
          take_new();
        } else {
          serve(fd);
        }
      }
      if (stop && clients_.empty()) return;
    }
  }

 private:
  void control(int operation, int fd, std::uint32_t what) {
    epoll_event event{};
    event.events = what;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_, operation, fd, &event) < 0) fail("epoll_ctl");
  }

  void take_new() {
    const std::lock_guard lock(mutex_);
    std::array<char, 64> wakes;
    while (::read(wake_[0], wakes.data(), wakes.size()) > 0) continue;
    for (const int fd : new_) {
      clients_.emplace(fd, std::make_unique<Client>());
      control(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
    new_.clear();
  }

  static bool step(int fd, Client& client) {
    if (!client.owes()) {
      const ssize_t got = ::recv(fd, client.buffer.data(), client.buffer.size(), 0);
      if (got == 0) return false;
      if (got < 0) return errno == EAGAIN || errno == EINTR;
      client.begin = 0;
      client.end = static_cast<std::size_t>(got);
    }
    const ssize_t sent = ::send(fd, client.buffer.data() + client.begin,
                                client.end - client.begin, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    client.begin += static_cast<std::size_t>(sent);
    return true;
  }

  void serve(int fd) {
    Client& client = *clients_.at(fd);
    const bool owed = client.owes();
    if (!step(fd, client)) {
      end(fd);
    } else if (client.owes() != owed) {
      control(EPOLL_CTL_MOD, fd, client.owes() ? EPOLLOUT : EPOLLIN);
    }
  }

  void end(int fd) {
    // Forgotten first: once closed, the number may come back with a new client.
    clients_.erase(fd);
    ::close(fd);
    (void)!::write(end_pipe_, "", 1);
  }

  void end_silent() {
    std::vector<int> silent;
    for (const auto& [fd, client] : clients_)
      if (!client->owes()) silent.push_back(fd);
    for (const int fd : silent) end(fd);
  }

  int epoll_;
  int end_pipe_;
  std::array<int, 2> wake_{};
  std::mutex mutex_;
  std::vector<int> new_;
  std::unordered_map<int, std::unique_ptr<Client>> clients_;
};

int signal_pipe = -1;
void on_terminate(int) {
  stopping = true;
  (void)!::write(signal_pipe, "", 1);
}

void drain(int pipe) {
  std::array<char, 64> bytes;
  while (::read(pipe, bytes.data(), bytes.size()) > 0) continue;
}

// `events` gets a byte when a client ended and when the program is told to stop.
void accept_clients(int listener, int events, std::vector<std::unique_ptr<Loop>>& loops) {
  std::array<pollfd, 2> ready{{{listener, POLLIN, 0}, {events, POLLIN, 0}}};
  std::size_t next = 0;
  while (!stopping) {
    const bool accepting = ready[0].fd >= 0;
    if (::poll(ready.data(), ready.size(), accepting ? -1 : kRetryMs) < 0) continue;
    if (ready[1].revents != 0) drain(events);
    ready[0].fd = listener;
    if (!accepting || ready[0].revents == 0) continue;
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      loops[next++ % loops.size()]->add(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      ready[0].fd = -1;
    }
  }
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
  std::array<int, 2> events{};
  if (::pipe2(events.data(), O_CLOEXEC | O_NONBLOCK) < 0) fail("pipe2");
  signal_pipe = events[1];
  struct sigaction action {};
  action.sa_handler = on_terminate;
  ::sigaction(SIGTERM, &action, nullptr);

  const std::vector<int> files = load_files("/etc");
  warm_up();
  std::vector<std::unique_ptr<Loop>> loops;
  for (int i = 0; i < kThreads; ++i) loops.push_back(std::make_unique<Loop>(events[1]));
  const int listener = listen_on(argv[1], argv[2]);
  std::vector<std::thread> threads;
  for (const auto& loop : loops) threads.emplace_back([&loop] { loop->run(); });
  accept_clients(listener, events[0], loops);
  ::close(listener);
  for (const auto& loop : loops) loop->wake();
  for (std::thread& thread : threads) thread.join();
  for (const int fd : files) ::close(fd);
  return 0;
}
