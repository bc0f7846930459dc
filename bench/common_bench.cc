// What the wrappers of common cost: every measurement twice, once with the raw calls and once with
// common, so that the two can be compared line by line. The goal is a difference within 2 % of CPU
// time. Run them in turns, or the load of the machine decides:
//   common_bench --benchmark_repetitions=15 --benchmark_enable_random_interleaving=true
// With SOCKWORK_BENCH_ITERATIONS set, each runs exactly that often: common_instructions.sh counts
// the instructions of a single pass that way.

#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <utility>

#include "sock/local.h"
#include "sock/tcp.h"

namespace {

constexpr std::size_t kMessage = 64;

void require(bool good) {
  if (!good) std::abort();
}

// 64 bytes through a socketpair: one send, one receive.
void send_recv_raw(benchmark::State& state) {
  std::array<int, 2> fds{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
  std::array<std::byte, kMessage> buffer{};
  for (auto _ : state) {
    const ssize_t sent = ::send(fds[0], buffer.data(), buffer.size(), MSG_NOSIGNAL);
    const ssize_t received = ::recv(fds[1], buffer.data(), buffer.size(), 0);
    require(sent == kMessage && received == kMessage);
  }
  ::close(fds[0]);
  ::close(fds[1]);
}

void send_recv_common(benchmark::State& state) {
  const auto [left, right] = sock::socketpair(SOCK_STREAM).value();
  std::array<std::byte, kMessage> buffer{};
  for (auto _ : state) {
    const auto sent = left.send(buffer);
    const auto received = right.recv(buffer);
    require(sent && received && *sent == kMessage && *received == kMessage);
  }
}

// A receive that would block, and the test for EAGAIN.
void would_block_raw(benchmark::State& state) {
  std::array<int, 2> fds{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) == 0);
  std::array<std::byte, kMessage> buffer{};
  for (auto _ : state) {
    require(::recv(fds[0], buffer.data(), buffer.size(), 0) == -1 && errno == EAGAIN);
  }
  ::close(fds[0]);
  ::close(fds[1]);
}

void would_block_common(benchmark::State& state) {
  const auto pair = sock::socketpair(SOCK_STREAM, SOCK_CLOEXEC | SOCK_NONBLOCK).value();
  std::array<std::byte, kMessage> buffer{};
  for (auto _ : state) {
    require(pair.first.recv(buffer).error() == EAGAIN);
  }
}

// A connection over loopback, from socket to close. The client closes first and with RST, because
// a benchmark that leaves tens of thousands of connections in TIME_WAIT measures their table.
void connect_accept_raw(benchmark::State& state) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  require(::bind(listener, any, size) == 0 && ::listen(listener, SOMAXCONN) == 0);
  require(::getsockname(listener, any, &size) == 0);
  for (auto _ : state) {
    const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(::connect(client, any, size) == 0);
    sockaddr_storage peer{};
    socklen_t peer_size = sizeof peer;
    const int server =
        ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &peer_size, SOCK_CLOEXEC);
    const linger reset{1, 0};
    require(::setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    ::close(client);
    ::close(server);
  }
  ::close(listener);
}

void connect_accept_common(benchmark::State& state) {
  const auto listener = sock::Socket::create(AF_INET, SOCK_STREAM).value();
  listener.bind(sock::SocketAddress::ipv4_loopback(0)).value();
  listener.listen().value();
  const auto address = listener.local_address().value();
  for (auto _ : state) {
    auto client = sock::Socket::create(AF_INET, SOCK_STREAM);
    require(client && client->connect(address));
    sock::SocketAddress peer;
    const auto server = listener.accept(&peer);
    require(server && client->set(sock::opt::linger, std::chrono::seconds(0)));
    client->reset();
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const char* const fixed = std::getenv("SOCKWORK_BENCH_ITERATIONS");
  using Entry = std::pair<const char*, void (*)(benchmark::State&)>;
  for (const auto& [name, function] :
       {Entry{"send_recv_raw", send_recv_raw}, Entry{"send_recv_common", send_recv_common},
        Entry{"would_block_raw", would_block_raw}, Entry{"would_block_common", would_block_common},
        Entry{"connect_accept_raw", connect_accept_raw},
        Entry{"connect_accept_common", connect_accept_common}}) {
    auto* const registered = benchmark::RegisterBenchmark(name, function);
    if (fixed != nullptr) registered->Iterations(std::atoll(fixed));
  }
  benchmark::RunSpecifiedBenchmarks();
}
