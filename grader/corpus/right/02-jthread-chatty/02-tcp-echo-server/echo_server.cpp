// A std::jthread per client, joined when it has ended, and much talk on stderr.
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
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
#include <list>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
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
void talk(int client, const char* direction, const char* data, std::size_t size) {
  std::string line = "client " + std::to_string(client) + " " + direction + " " +
                     std::to_string(size) + " bytes:";
  for (std::size_t i = 0; i < size && i < 32; ++i) {
    std::array<char, 4> hex;
    std::snprintf(hex.data(), hex.size(), " %02x", static_cast<unsigned char>(data[i]));
    line += hex.data();
  }
  std::fprintf(stderr, "%s\n", line.c_str());
}

void post(int event) {
  const std::uint64_t one = 1;
  (void)!::write(event, &one, sizeof one);
}

void drain(int event) {
  std::uint64_t count = 0;
  (void)!::read(event, &count, sizeof count);
}

class Session {
 public:
  // `stop` is readable once the program was told to stop; `ended` is posted when the thread may
  // be joined without waiting.
  Session(int fd, int stop, int ended) : fd_(fd), thread_([this, stop, ended] {
    echo(stop);
    std::fprintf(stderr, "client %d ended\n", fd_);
    ::close(fd_);
    over_ = true;
    post(ended);
  }) {}

  bool over() const { return over_; }

 private:
  void echo(int stop) {
    std::vector<char> buffer(16384);
    std::array<pollfd, 2> ready{{{fd_, POLLIN, 0}, {stop, POLLIN, 0}}};
    bool stopping = false;
    for (;;) {
      // Told to stop: a client that stays silent for the grace period is owed nothing.
      const int count = stopping ? ::poll(ready.data(), 1, kGraceMs) : ::poll(ready.data(), 2, -1);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return;
      if (!stopping && ready[1].revents != 0) stopping = true;
      if (ready[0].revents == 0) continue;
      const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) std::fprintf(stderr, "client %d: recv: %s\n", fd_, std::strerror(errno));
      if (got <= 0) return;
      talk(fd_, "sent", buffer.data(), static_cast<std::size_t>(got));
      if (!send_all(buffer.data(), static_cast<std::size_t>(got))) return;
      talk(fd_, "got back", buffer.data(), static_cast<std::size_t>(got));
    }
  }

  bool send_all(const char* data, std::size_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(fd_, data, size, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return false;
      data += sent;
      size -= static_cast<std::size_t>(sent);
    }
    return true;
  }

  const int fd_;
  std::atomic<bool> over_ = false;
  std::jthread thread_;  // last, so that it starts after and is joined before the others end
};

void accept_one(pollfd& listener, int stop, int ended, std::list<Session>& sessions) {
  const int fd = ::accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) {
    std::fprintf(stderr, "accept: %s\n", std::strerror(errno));
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      listener.fd = -1;
    return;
  }
  std::fprintf(stderr, "client %d begins, %zu others\n", fd, sessions.size());
  try {
    sessions.emplace_back(fd, stop, ended);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "client %d: thread: %s\n", fd, error.what());
    ::close(fd);
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
  sigset_t terminate;
  ::sigemptyset(&terminate);
  ::sigaddset(&terminate, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &terminate, nullptr);
  const int signals = ::signalfd(-1, &terminate, SFD_CLOEXEC | SFD_NONBLOCK);
  const int ended = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int stop = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (signals < 0) fail("signalfd");
  if (ended < 0 || stop < 0) fail("eventfd");

  const int listener = listen_on(argv[1], argv[2]);
  std::fprintf(stderr, "echo_server listens on %s port %s\n", argv[1], argv[2]);
  std::list<Session> sessions;
  std::array<pollfd, 3> ready{{{listener, POLLIN, 0}, {ended, POLLIN, 0}, {signals, POLLIN, 0}}};
  while (ready[2].revents == 0) {
    const bool accepting = ready[0].fd >= 0;
    if (::poll(ready.data(), ready.size(), accepting ? -1 : kRetryMs) < 0) continue;
    if (ready[1].revents != 0) drain(ended);
    sessions.remove_if([](const Session& session) { return session.over(); });
    if (accepting && ready[0].revents != 0) accept_one(ready[0], stop, ended, sessions);
    else ready[0].fd = listener;
  }
  std::fprintf(stderr, "told to stop, %zu clients\n", sessions.size());
  ::close(listener);
  post(stop);
  return 0;  // the sessions are joined here
}
