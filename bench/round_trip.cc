// round_trip - the echo partner and the stopwatch of bench/link.py.
//
//   round_trip serve HOST PORT
//   round_trip ping HOST PORT COUNT     prints the median time of one echoed byte, in microseconds

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string_view>
#include <vector>

#include "sock/options.h"
#include "sock/resolve.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

using Clock = std::chrono::steady_clock;

void serve(const sock::SocketAddress& address) {
  const sock::Socket listener = sock::tcp_listen(address).value();
  const sock::Socket client = listener.accept().value();
  client.set(sock::opt::no_delay, true).value();
  std::array<std::byte, 64> buffer{};
  while (true) {
    const std::size_t size = client.recv(buffer).value();
    if (size == 0) return;
    sock::send_all(client, std::span(buffer).first(size)).value();
  }
}

void ping(const sock::SocketAddress& address, std::size_t count) {
  const sock::Socket socket = sock::tcp_connect(address).value();
  socket.set(sock::opt::no_delay, true).value();
  std::array<std::byte, 1> byte{};
  std::vector<double> times;
  for (std::size_t i = 0; i < count; ++i) {
    const Clock::time_point start = Clock::now();
    (void)socket.send(byte).value();
    (void)socket.recv(byte).value();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(count / 2),
                   times.end());
  std::cout << times[count / 2] << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: round_trip serve HOST PORT | ping HOST PORT COUNT\n";
    return 2;
  }
  const sock::SocketAddress address = sock::resolve(argv[2], argv[3]).value().front().address;
  if (std::string_view(argv[1]) == "serve") {
    serve(address);
  } else {
    ping(address, argc > 4 ? std::strtoul(argv[4], nullptr, 10) : 10000);
  }
  return 0;
}
