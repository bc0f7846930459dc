// One thread, edge-triggered epoll. An edge is told once, so a client stays on the list of those
// that may have work until recv or send has said EAGAIN.
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <string>

namespace {

constexpr int kGraceMs = 500;
constexpr int kRetryMs = 1000;
constexpr int kTurns = 16;

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
enum class Outcome { kMore, kWaits, kEnded };

struct Client {
  explicit Client(int fd) : fd(fd) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { ::close(fd); }

  bool owes() const { return begin < end; }

  Outcome send_owed() {
    while (owes()) {
      const ssize_t sent = ::send(fd, buffer.data() + begin, end - begin, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return errno == EAGAIN ? Outcome::kWaits : Outcome::kEnded;
      begin += static_cast<std::size_t>(sent);
    }
    return Outcome::kMore;
  }

  Outcome receive() {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got == 0) return Outcome::kEnded;
    if (got < 0 && errno == EINTR) return Outcome::kMore;
    if (got < 0) return errno == EAGAIN ? Outcome::kWaits : Outcome::kEnded;
    begin = 0;
    end = static_cast<std::size_t>(got);
    return Outcome::kMore;
  }

  // kMore after kTurns rounds: the others come first, then this one again.
  Outcome work() {
    for (int turn = 0; turn < kTurns; ++turn) {
      if (const Outcome outcome = send_owed(); outcome != Outcome::kMore) return outcome;
      if (const Outcome outcome = receive(); outcome != Outcome::kMore) return outcome;
    }
    return Outcome::kMore;
  }

  const int fd;
  std::list<Client>::iterator self;
  bool listed = false;
  std::size_t begin = 0;
  std::size_t end = 0;
  std::array<char, 4096> buffer;
};

volatile std::sig_atomic_t stopping = 0;
void on_terminate(int) { stopping = 1; }

class Server {
 public:
  explicit Server(int listener) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), listener_(listener) {
    if (epoll_ < 0) fail("epoll_create1");
    add(listener_, EPOLLIN | EPOLLET, nullptr);
  }

  void run(const sigset_t& unblocked) {
    while (listener_ >= 0 || !clients_.empty()) {
      wait(unblocked);
      if (stopping && listener_ >= 0) stop();
      if (may_accept_) accept_all();
      for (std::size_t left = ready_.size(); left > 0; --left) work_one();
    }
    ::close(epoll_);
  }

 private:
  void add(int fd, std::uint32_t events, Client* client) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = client;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
  }

  int patience() const {
    if (!ready_.empty()) return 0;
    if (stopping) return kGraceMs;
    return out_of_room_ ? kRetryMs : -1;
  }

  void wait(const sigset_t& unblocked) {
    std::array<epoll_event, 128> events;
    const int count = ::epoll_pwait(epoll_, events.data(), static_cast<int>(events.size()),
                                    patience(), &unblocked);
    if (count < 0 && errno != EINTR) fail("epoll_pwait");
    if (count == 0 && ready_.empty()) {
      may_accept_ = listener_ >= 0;
      if (stopping) end_silent();
    }
    for (int i = 0; i < count; ++i) {
      auto* client = static_cast<Client*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (client == nullptr) {
        may_accept_ = true;
      } else {
        put_on_list(*client);
      }
    }
  }

  void put_on_list(Client& client) {
    if (!client.listed) ready_.push_back(&client);
    client.listed = true;
  }

  // The listener's edge is told once too: all that wait are taken, or as many as there is room for.
  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
      if (fd < 0) {
        out_of_room_ = errno != EAGAIN;
        may_accept_ = false;
        return;
      }
      clients_.emplace_front(fd);
      Client& client = clients_.front();
      client.self = clients_.begin();
      add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &client);
    }
  }

  void work_one() {
    Client& client = *ready_.front();
    ready_.pop_front();
    client.listed = false;
    const Outcome outcome = client.work();
    if (outcome == Outcome::kMore) put_on_list(client);
    if (outcome != Outcome::kEnded) return;
    clients_.erase(client.self);
    if (out_of_room_) may_accept_ = listener_ >= 0;
    if (may_accept_) accept_all();
  }

  void stop() {
    ::close(listener_);
    listener_ = -1;
    may_accept_ = false;
  }

  // Nobody sent anything during the grace period: whoever is owed nothing has ended.
  void end_silent() {
    clients_.remove_if([](const Client& client) { return !client.owes(); });
  }

  int epoll_;
  int listener_;
  bool may_accept_ = false;
  bool out_of_room_ = false;
  std::list<Client> clients_;
  std::deque<Client*> ready_;
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
  sigset_t blocked, unblocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  struct sigaction action {};
  action.sa_handler = on_terminate;
  ::sigaction(SIGTERM, &action, nullptr);
  Server(listen_on(argv[1], argv[2])).run(unblocked);
  return 0;
}
