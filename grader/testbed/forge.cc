#include "forge.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <string>

#include "refusal.h"

namespace testbed {
namespace {

using Bytes = std::vector<std::byte>;

void put8(Bytes& bytes, unsigned value) { bytes.push_back(static_cast<std::byte>(value & 0xff)); }
void put16(Bytes& bytes, unsigned value) {
  put8(bytes, value >> 8);
  put8(bytes, value);
}
void put32(Bytes& bytes, std::uint32_t value) {
  put16(bytes, value >> 16);
  put16(bytes, value & 0xffff);
}
void store16(Bytes& bytes, std::size_t at, unsigned value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value & 0xff);
}

Bytes address_bytes(int family, const std::string& text) {
  Bytes bytes(family == AF_INET ? 4 : 16);
  if (::inet_pton(family, text.c_str(), bytes.data()) != 1) {
    throw Refusal("usage", "not a numeric address: " + text);
  }
  return bytes;
}

int family_of(const std::string& address) {
  return address.find(':') == std::string::npos ? AF_INET : AF_INET6;
}

// Ethernet and IP headers around `segment`, whose checksum lies at `checksum_at` and is still 0.
Bytes wrap(const Route& route, const std::string& source, const std::string& destination,
           std::uint8_t protocol, Bytes segment, std::size_t checksum_at) {
  const int family = family_of(source);
  const Bytes from = address_bytes(family, source), to = address_bytes(family, destination);
  std::uint32_t sum = 0;
  if (protocol != IPPROTO_ICMP) {  // ICMPv4 alone has no pseudo header
    sum = checksum_add(to, checksum_add(from, 0)) + protocol +
          static_cast<std::uint32_t>(segment.size());
  }
  store16(segment, checksum_at, checksum_finish(checksum_add(segment, sum)));

  Bytes frame;
  for (const std::uint8_t host : {route.destination_mac, route.source_mac}) {
    put32(frame, 0x02000000);
    put16(frame, host);
  }
  put16(frame, family == AF_INET ? 0x0800 : 0x86dd);
  if (family == AF_INET) {
    const std::size_t start = frame.size();
    put16(frame, 0x4500);
    put16(frame, static_cast<unsigned>(20 + segment.size()));
    put32(frame, 0x4000);  // no identification, don't fragment
    put8(frame, 64);
    put8(frame, protocol);
    put16(frame, 0);
    frame.insert(frame.end(), from.begin(), from.end());
    frame.insert(frame.end(), to.begin(), to.end());
    store16(frame, start + 10, checksum_finish(checksum_add(std::span(frame).subspan(start), 0)));
  } else {
    put32(frame, 0x60000000);
    put16(frame, static_cast<unsigned>(segment.size()));
    put8(frame, protocol);
    put8(frame, 64);
    frame.insert(frame.end(), from.begin(), from.end());
    frame.insert(frame.end(), to.begin(), to.end());
  }
  frame.insert(frame.end(), segment.begin(), segment.end());
  return frame;
}

}  // namespace

Bytes forge_reset(const Route& route, const End& source, const End& destination,
                  std::uint32_t seq) {
  Bytes segment;
  put16(segment, source.port);
  put16(segment, destination.port);
  put32(segment, seq);
  put32(segment, 0);
  put16(segment, 0x5000 | flag::kRst);
  put16(segment, 0);  // window
  put32(segment, 0);  // checksum, urgent pointer
  return wrap(route, source.address, destination.address, IPPROTO_TCP, std::move(segment), 16);
}

Bytes forge_unreachable(const Route& route, const std::string& source, std::uint8_t code,
                        std::span<const std::byte> offending) {
  constexpr std::size_t kEthernet = 14;
  const Packet packet = decode(offending);
  if (packet.family == 0) throw Refusal("usage", "only an IP packet can be answered by ICMP");
  const bool v4 = packet.family == AF_INET;
  // RFC 792: the header and 8 bytes; RFC 4443: as much as fits the minimum MTU.
  const std::size_t quoted =
      std::min(offending.size() - kEthernet, v4 ? std::size_t{28} : std::size_t{1232});
  Bytes message;
  put8(message, v4 ? 3 : 1);
  put8(message, code);
  put16(message, 0);
  put32(message, 0);
  const auto begin = offending.begin() + kEthernet;
  message.insert(message.end(), begin, begin + static_cast<std::ptrdiff_t>(quoted));
  const int protocol = v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  return wrap(route, source, packet.source, static_cast<std::uint8_t>(protocol), std::move(message),
              2);
}

}  // namespace testbed
