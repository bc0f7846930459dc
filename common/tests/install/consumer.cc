// Exit 0 when a greeting crosses a TCP connection made with the installed headers.

#include <array>
#include <cstddef>
#include <string_view>

#include "sock/bytes.h"
#include "sock/stream.h"
#include "sock/tcp.h"

int main() {
  constexpr std::string_view kGreeting = "hello";
  const auto listener = sock::tcp_listen(sock::SocketAddress::ipv4_loopback(0)).value();
  const auto client = sock::tcp_connect(listener.local_address().value()).value();
  const auto server = listener.accept().value();
  sock::send_all(server, sock::as_bytes(kGreeting)).value();

  std::array<std::byte, kGreeting.size()> buffer{};
  sock::recv_at_least(client, buffer, buffer.size()).value();
  return sock::as_text(buffer) == kGreeting ? 0 : 1;
}
