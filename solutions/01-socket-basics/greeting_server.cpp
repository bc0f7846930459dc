// greeting_server HOST PORT - says `hello client` to everybody and ends each connection in order.
//
// close(2) with unread bytes in the receive buffer sends RST, and RST makes the client's kernel
// throw away a greeting that it has received but not delivered yet (RFC 1122, section 4.2.2.13). So
// we send, shut down our side (FIN), and then read on until the client ends too. A client may take
// its time or never end, so nobody is waited for: one poll(2) watches the listener and all guests,
// and every guest is given a time and a number of bytes.

#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <deque>
#include <iostream>
#include <vector>

#include "sock/epoll.h"
#include "sock/resolve.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 2s;               // for a guest to end after the greeting
constexpr std::size_t kMostWords = 1 << 20;  // bytes a guest may say meanwhile
constexpr std::size_t kMostGuests = 64;      // then the one that came first has to go
constexpr auto kPause = 100ms;               // before the next try when descriptors ran out

int usage() {
  std::cerr << "usage: greeting_server HOST PORT\n";
  return 2;
}

// A client that has its greeting and our FIN, until its own FIN has come.
struct Guest {
  sock::Socket socket;
  sock::Deadline patience = sock::Deadline::after(kPatience);
  std::size_t words = 0;

  // Reads what it says, without waiting. True when there is no reason to keep the connection.
  bool is_done() {
    std::array<std::byte, 4096> buffer;
    const auto count = socket.recv(buffer, MSG_DONTWAIT);
    if (!count && count.error() != EAGAIN && count.error() != EINTR) return true;  // RST
    if (!count) return patience.passed();
    words += *count;
    return *count == 0 || words > kMostWords || patience.passed();
  }
};

class Server {
 public:
  Server(sock::Socket listener, sock::SignalFd terminate)
      : listener_(std::move(listener)), terminate_(std::move(terminate)) {}

  // Serves until SIGTERM, and then until the last guest has left.
  sock::Result<void> run() {
    while (listener_ || !guests_.empty()) {
      if (auto waited = wait(); !waited) return waited;
      std::erase_if(guests_, [](Guest& guest) { return guest.is_done(); });
      if (listener_) {
        if (auto welcomed = welcome_all(); !welcomed) return welcomed;
        if (terminate_.take()) listener_.reset();
      }
    }
    return {};
  }

 private:
  // poll(2) until something happens, somebody's patience ends, or a pause is over. A descriptor of
  // -1 is one that poll leaves out.
  sock::Result<void> wait() {
    std::vector<pollfd> watched{{listener_ ? terminate_.get() : -1, POLLIN, 0},
                                {pausing_ ? -1 : listener_.get(), POLLIN, 0}};
    for (const Guest& guest : guests_) watched.push_back({guest.socket.get(), POLLIN, 0});
    sock::Deadline deadline = sock::Deadline::never();
    if (!guests_.empty()) deadline = guests_.front().patience;  // who came first leaves first
    if (pausing_) deadline = sock::Deadline::after(kPause);
    pausing_ = false;
    const int ready = ::poll(watched.data(), watched.size(), deadline.poll_ms());
    if (ready == -1 && errno != EINTR) return sock::Error::last("poll");
    return {};
  }

  sock::Result<void> welcome_all() {
    while (!pausing_) {
      sock::SocketAddress from;
      auto client = listener_.accept(&from);
      if (client) {
        welcome(std::move(*client), from);
        continue;
      }
      switch (sock::classify_accept_error(client.error().code)) {
        case sock::AcceptAction::wait:
          return {};
        case sock::AcceptAction::retry:
          break;
        case sock::AcceptAction::back_off:
          pausing_ = guests_.empty();
          if (!guests_.empty()) guests_.pop_front();
          break;
        case sock::AcceptAction::stop:
          return client.error();
      }
    }
    return {};
  }

  void welcome(sock::Socket client, const sock::SocketAddress& from) {
    std::cout << "connected from: " << from.to_string() << std::endl;
    // Twelve bytes always fit into an empty send buffer; an error here means that the client has
    // gone already, and that is its own affair.
    const auto sent = sock::send_all(client, sock::as_bytes("hello client"));
    if (!sent || !client.shutdown(SHUT_WR)) return;
    if (guests_.size() == kMostGuests) guests_.pop_front();
    guests_.push_back({std::move(client)});
  }

  sock::Socket listener_;
  sock::SignalFd terminate_;
  std::deque<Guest> guests_;
  bool pausing_ = false;  // no descriptors: the listener stays readable and would make us spin
};

sock::Result<void> run(const char* host, const char* port) {
  // Before anything else, so that no moment is left in which SIGTERM would kill us.
  const sigset_t signals = sock::signal_set({SIGTERM});
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  auto terminate = sock::SignalFd::create(signals);
  if (!terminate) return terminate.error();

  const auto endpoints = sock::resolve(host, port);
  if (!endpoints) return endpoints.error();
  auto listener = sock::tcp_listen(endpoints->front().address);
  if (!listener) return listener.error();
  // A client that poll announced can be gone before accept, which must not wait for the next.
  if (auto done = listener->set_nonblocking(true); !done) return done;
  return Server(std::move(*listener), std::move(*terminate)).run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  std::signal(SIGPIPE, SIG_IGN);  // a closed standard output is no reason to stop serving
  const auto done = run(argv[1], argv[2]);
  if (!done) return sock::report("greeting_server", done.error());
}
