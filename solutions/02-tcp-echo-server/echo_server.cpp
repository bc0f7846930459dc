// echo_server HOST PORT - sends every byte back, until the client ends (RFC 862).
//
// One thread and one epoll(7) serve everybody, so no call may wait: all sockets are non-blocking.
// A client is in one of two states. While its echo goes out we read from it. When the kernel takes
// only a part (its send buffer is full, because the client does not read), the rest is kept, and we
// read nothing more from this client until the rest is gone. That is back-pressure: the client's
// own kernel tells it to stop, and a client costs us at most one chunk of memory.

#include <sys/resource.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <iostream>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sock/epoll.h"
#include "sock/resolve.h"
#include "sock/tcp.h"

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kChunk = 16384;  // bytes read from a client at a time
constexpr int kAcceptsPerTurn = 64;    // then the clients that are here have their turn
constexpr auto kPause = 1s;            // without accepting, when descriptors ran out
constexpr auto kQuiet = 500ms;         // at the end: nobody who is silent so long is owed more
constexpr auto kFarewell = 60s;        // at the end: for clients that do not read their echo

int usage() {
  std::cerr << "usage: echo_server HOST PORT\n";
  return 2;
}

// Nothing to do now, or a signal came: epoll reports the socket again when it is ready.
bool is_later(const sock::Error& error) { return error == EAGAIN || error == EINTR; }

struct Client {
  sock::Socket socket;
  std::vector<std::byte> rest;  // read and not yet sent back; empty while we read
};

class Server {
 public:
  Server(sock::Socket listener, sock::SignalFd terminate, sock::Epoll epoll)
      : listener_(std::move(listener)),
        terminate_(std::move(terminate)),
        epoll_(std::move(epoll)) {}

  // Serves until SIGTERM and then until nothing is owed any more.
  sock::Result<void> run() {
    if (auto done = watch(listener_.get(), EPOLLIN); !done) return done;
    if (auto done = watch(terminate_.get(), EPOLLIN); !done) return done;
    std::array<epoll_event, 256> events;
    while (listener_ || !(clients_.empty() || farewell_.passed())) {
      const auto ready = epoll_.wait(events, deadline());
      if (!ready && ready.error() != EINTR) return ready.error();
      if (!ready) continue;
      if (ready->empty() && !listener_) leave_the_quiet();
      if (paused_until_.passed()) {
        if (auto done = resume_accepting(); !done) return done;
      }
      for (const epoll_event& event : *ready) {
        if (auto done = handle(event.data.fd); !done) return done;
      }
    }
    return {};
  }

 private:
  [[nodiscard]] sock::Result<void> watch(int fd, std::uint32_t events) const {
    return epoll_.add(fd, events, {.fd = fd});
  }

  [[nodiscard]] sock::Deadline deadline() const {
    return listener_ ? paused_until_ : sock::Deadline::after(kQuiet);
  }

  // After SIGTERM, when nothing came for a while: who stays is a client that waits for its echo.
  void leave_the_quiet() {
    std::erase_if(clients_, [](const auto& entry) { return entry.second.rest.empty(); });
  }

  sock::Result<void> handle(int fd) {
    if (fd == terminate_.get()) return stop();
    if (fd == listener_.get()) return accept_some();
    const auto found = clients_.find(fd);
    if (found == clients_.end()) return {};  // the listener's event, after SIGTERM closed it
    Client& client = found->second;
    // EPOLLERR and EPOLLHUP need no case of their own: the next call says what happened.
    const bool goes_on = client.rest.empty() ? echo(client) : send_rest(client);
    if (goes_on) return {};
    clients_.erase(found);  // closes it, and epoll forgets it
    return resume_accepting();
  }

  // One chunk from the client and back. False when the connection is over: at its end (FIN) every
  // byte has been echoed, so close sends our FIN; after an error (RST) there is nobody to tell.
  bool echo(Client& client) {
    const auto received = client.socket.recv(chunk_);
    if (!received) return is_later(received.error());
    if (*received == 0) return false;
    const std::span data = std::span(chunk_).first(*received);
    const auto sent = client.socket.send(data);
    if (!sent && !is_later(sent.error())) return false;
    const auto rest = data.subspan(sent.value_or(0));
    if (rest.empty()) return true;
    client.rest.assign(rest.begin(), rest.end());
    return watch_for(client, EPOLLOUT);
  }

  // What the kernel takes now of the rest. False when the connection is over.
  bool send_rest(Client& client) {
    const auto sent = client.socket.send(client.rest);
    if (!sent) return is_later(sent.error());
    client.rest.erase(client.rest.begin(),
                      client.rest.begin() + static_cast<std::ptrdiff_t>(*sent));
    if (!client.rest.empty()) return true;
    client.rest = {};  // frees the memory: thousands of silent clients hold none
    return watch_for(client, EPOLLIN);
  }

  [[nodiscard]] bool watch_for(const Client& client, std::uint32_t events) const {
    const int fd = client.socket.get();
    return epoll_.modify(fd, events, {.fd = fd}).has_value();
  }

  sock::Result<void> accept_some() {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      auto accepted = listener_.accept(nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (accepted) {
        welcome(std::move(*accepted));
        continue;
      }
      switch (sock::classify_accept_error(accepted.error().code)) {
        case sock::AcceptAction::wait:
          return {};
        case sock::AcceptAction::retry:
          break;
        case sock::AcceptAction::back_off:
          return pause_accepting();
        case sock::AcceptAction::stop:
          return accepted.error();
      }
    }
    return {};
  }

  // A client that cannot be watched (no memory) is closed again.
  void welcome(sock::Socket socket) {
    const int fd = socket.get();
    // Nagle's algorithm (tcp(7)) would hold the second of two short echoes back until the client
    // acknowledged the first. A client that has gone already is found by its first recv.
    static_cast<void>(socket.set(sock::opt::no_delay, true));
    if (watch(fd, EPOLLIN)) clients_.emplace(fd, Client{std::move(socket), {}});
  }

  // Without free descriptors the listener stays readable and accept keeps failing: do not look at
  // it until a client has left, or for a while when others hold what we need. Whoever waits to be
  // accepted is served then.
  sock::Result<void> pause_accepting() {
    paused_until_ = sock::Deadline::after(kPause);
    return epoll_.modify(listener_.get(), 0, {.fd = listener_.get()});
  }

  sock::Result<void> resume_accepting() {
    if (paused_until_.is_never() || !listener_) return {};
    paused_until_ = sock::Deadline::never();
    return epoll_.modify(listener_.get(), EPOLLIN, {.fd = listener_.get()});
  }

  // SIGTERM. Who is connected already, accepted or not, is still served; nobody else.
  sock::Result<void> stop() {
    const bool first = terminate_.take() && listener_;
    if (!first) return {};
    // As many turns as it takes to accept the longest queue there can be.
    for (int queued = SOMAXCONN; queued > 0 && paused_until_.is_never();
         queued -= kAcceptsPerTurn) {
      if (auto done = accept_some(); !done) return done;
    }
    listener_.reset();
    farewell_ = sock::Deadline::after(kFarewell);
    return {};
  }

  sock::Socket listener_;
  sock::SignalFd terminate_;
  sock::Epoll epoll_;
  std::unordered_map<int, Client> clients_;
  std::array<std::byte, kChunk> chunk_{};
  sock::Deadline paused_until_ = sock::Deadline::never();  // never: it accepts
  sock::Deadline farewell_ = sock::Deadline::never();
};

// Every client costs a descriptor, and the usual limit is 1,024. The hard limit is what an
// ordinary process may set it to (getrlimit(2)).
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == -1) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

sock::Result<void> run(const char* host, const char* port) {
  const sigset_t signals = sock::signal_set({SIGTERM});
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  auto terminate = sock::SignalFd::create(signals);
  if (!terminate) return terminate.error();
  auto epoll = sock::Epoll::create();
  if (!epoll) return epoll.error();

  const auto endpoints = sock::resolve(host, port);
  if (!endpoints) return endpoints.error();
  auto listener = sock::tcp_listen(endpoints->front().address);
  if (!listener) return listener.error();
  // A client that epoll announced can be gone before accept, which must not wait for the next.
  if (auto done = listener->set_nonblocking(true); !done) return done;
  return Server(std::move(*listener), std::move(*terminate), std::move(*epoll)).run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  raise_descriptor_limit();
  const auto done = run(argv[1], argv[2]);
  if (!done) return sock::report("echo_server", done.error());
}
