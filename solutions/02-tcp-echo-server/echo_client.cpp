// echo_client HOST PORT - sends standard input, prints what comes back, until both are done.
//
// Sending everything first and reading then would deadlock on large input: the echo fills all the
// buffers on the way, the server stops reading, and our send never returns. So two copies go on at
// the same time, each only as far as poll(2) says that it will not block:
//   standard input -> to_server -> socket      socket -> to_output -> standard output

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstddef>
#include <iostream>
#include <span>

#include "sock/resolve.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

int usage() {
  std::cerr << "usage: echo_client HOST PORT\n";
  return 2;
}

// Bytes on their way from one descriptor to another: filled only when it is empty.
class Buffer {
 public:
  [[nodiscard]] bool empty() const { return rest_.empty(); }
  [[nodiscard]] std::span<const std::byte> rest() const { return rest_; }
  std::span<std::byte> room() { return bytes_; }
  void filled(std::size_t size) { rest_ = std::span(bytes_).first(size); }
  void taken(std::size_t size) { rest_ = rest_.subspan(size); }

 private:
  std::array<std::byte, 65536> bytes_{};
  std::span<const std::byte> rest_;
};

class EchoClient {
 public:
  explicit EchoClient(sock::Socket connection) : connection_(std::move(connection)) {}

  // Copies both ways until both ends came. A connection that breaks ends the sending at once; what
  // has been received by then is still printed.
  sock::Result<void> run() {
    while (input_open_ || echo_open_ || !to_output_.empty()) {
      if (auto done = turn(); !done) return done;
    }
    return broken_;
  }

 private:
  // One poll(2) and what it allows. A descriptor of -1 is left out: one that has ended and one
  // whose bytes have no room would be reported again and again.
  sock::Result<void> turn() {
    const bool sending = !to_server_.empty();
    const bool receiving = echo_open_ && to_output_.empty();
    const auto wanted = static_cast<short>((sending ? POLLOUT : 0) | (receiving ? POLLIN : 0));
    std::array fds{pollfd{input_open_ && !sending ? input_.get() : -1, POLLIN, 0},
                   pollfd{wanted != 0 ? connection_.get() : -1, wanted, 0},
                   pollfd{to_output_.empty() ? -1 : output_.get(), POLLOUT, 0}};
    if (::poll(fds.data(), fds.size(), -1) == -1) {
      if (errno == EINTR) return {};
      return sock::Error::last("poll");
    }
    // Hang-ups and errors count as ready: the call itself says what happened.
    const auto& [input, connection, output] = fds;
    if (connection.revents != 0 && receiving) receive();
    if (connection.revents != 0 && !to_server_.empty()) send();
    if (input.revents != 0 && input_open_) {
      if (auto done = read_input(); !done) return done;
    }
    if (output.revents != 0) return write_output();
    return {};
  }

  sock::Result<void> read_input() {
    const auto count = input_.read(to_server_.room());
    if (!count) return is_later(count.error()) ? sock::Result<void>() : count.error();
    to_server_.filled(*count);
    if (*count == 0) end_sending();
    return {};
  }

  // The half-close: our FIN follows the last byte, and the echo of it can still come.
  void end_sending() {
    input_open_ = false;
    if (auto done = connection_.shutdown(SHUT_WR); !done) broken_ = done;
  }

  void send() {
    const auto count = connection_.send(to_server_.rest(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count) {
      to_server_.taken(*count);
    } else if (!is_later(count.error())) {
      give_up(count.error());
    }
  }

  void receive() {
    const auto count = connection_.recv(to_output_.room(), MSG_DONTWAIT);
    if (count) {
      to_output_.filled(*count);
      echo_open_ = *count != 0;
    } else if (!is_later(count.error())) {
      give_up(count.error());
      echo_open_ = false;
    }
  }

  // poll says that a pipe is writable when PIPE_BUF bytes fit; more could block (pipe(7)).
  // O_NONBLOCK is no way out: it would change the terminal or pipe for everybody who shares it.
  sock::Result<void> write_output() {
    const auto rest = to_output_.rest();
    const auto count = output_.write(rest.first(std::min<std::size_t>(rest.size(), PIPE_BUF)));
    if (!count) return is_later(count.error()) ? sock::Result<void>() : count.error();
    to_output_.taken(*count);
    return {};
  }

  void give_up(const sock::Error& error) {
    broken_ = error;
    input_open_ = false;
    to_server_.filled(0);
  }

  // Nothing moved this time, but nothing is wrong.
  static bool is_later(const sock::Error& error) { return error == EAGAIN || error == EINTR; }

  sock::Fd input_{STDIN_FILENO};
  sock::Fd output_{STDOUT_FILENO};
  sock::Socket connection_;
  Buffer to_server_;
  Buffer to_output_;
  bool input_open_ = true;
  bool echo_open_ = true;
  sock::Result<void> broken_;  // why the connection did not end in order
};

sock::Result<void> run(const char* host, const char* port) {
  const auto endpoints = sock::resolve(host, port);
  if (!endpoints) return endpoints.error();
  auto connection = sock::tcp_connect(*endpoints);
  if (!connection) return connection.error();
  return EchoClient(std::move(*connection)).run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !sock::is_service(argv[2])) return usage();
  std::signal(SIGPIPE, SIG_IGN);  // a closed standard output is an error to report, no death
  // Started with a closed standard input, we would get descriptor 0 for our socket and read from
  // it what we sent. open(2) returns the lowest free number, so this makes it an empty input.
  if (::fcntl(STDIN_FILENO, F_GETFD) == -1) static_cast<void>(::open("/dev/null", O_RDONLY));
  const auto done = run(argv[1], argv[2]);
  if (!done) return sock::report("echo_client", done.error());
}
