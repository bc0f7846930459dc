#include "decode.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "sock/bytes.h"

namespace testbed {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint16_t kEtherIpv4 = 0x0800, kEtherArp = 0x0806, kEtherVlan = 0x8100,
                        kEtherIpv6 = 0x86dd, kEtherServiceVlan = 0x88a8;

struct FlagName {
  std::uint16_t value;
  const char* name;
};
constexpr FlagName kFlags[] = {{flag::kSyn, "SYN"}, {flag::kFin, "FIN"}, {flag::kRst, "RST"},
                               {flag::kPsh, "PSH"}, {flag::kAck, "ACK"}, {flag::kUrg, "URG"},
                               {flag::kEce, "ECE"}, {flag::kCwr, "CWR"}, {flag::kAe, "AE"}};

std::uint8_t byte_at(Bytes bytes, std::size_t at) {
  return std::to_integer<std::uint8_t>(bytes[at]);
}
std::uint16_t word_at(Bytes bytes, std::size_t at) { return sock::load_be16(bytes.subspan(at, 2)); }
std::uint32_t long_at(Bytes bytes, std::size_t at) { return sock::load_be32(bytes.subspan(at, 4)); }

std::string mac_text(Bytes bytes) {
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", byte_at(bytes, 0),
                byte_at(bytes, 1), byte_at(bytes, 2), byte_at(bytes, 3), byte_at(bytes, 4),
                byte_at(bytes, 5));
  return text.data();
}

std::string address_text(int family, Bytes bytes) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(family, bytes.data(), text.data(), text.size());
  return text.data();
}

// The transport's checksum over pseudo header and segment (RFC 9293 section 3.1, RFC 8200 8.1).
bool transport_checksum_ok(Bytes source, Bytes destination, std::uint8_t protocol, Bytes segment) {
  std::uint32_t sum = checksum_add(source, 0);
  sum = checksum_add(destination, sum);
  sum += protocol;
  sum += static_cast<std::uint32_t>(segment.size());
  return checksum_finish(checksum_add(segment, sum)) == 0;
}

void decode_tcp_option(Packet& packet, std::uint8_t kind, Bytes body) {
  if (kind == 2 && body.size() == 2) packet.options.mss = word_at(body, 0);
  if (kind == 3 && body.size() == 1) packet.options.window_scale = byte_at(body, 0);
  if (kind == 4 && body.empty()) packet.options.sack_permitted = true;
  if (kind == 5) {
    for (std::size_t at = 0; at + 8 <= body.size(); at += 8) {
      packet.options.sack.emplace_back(long_at(body, at), long_at(body, at + 4));
    }
  }
  if (kind == 8 && body.size() == 8)
    packet.options.timestamps = {long_at(body, 0), long_at(body, 4)};
}

void decode_tcp_options(Packet& packet, Bytes options) {
  std::size_t at = 0;
  while (at < options.size()) {
    const std::uint8_t kind = byte_at(options, at);
    if (kind == 0) return;
    if (kind == 1) {
      ++at;
      continue;
    }
    const std::size_t size = at + 1 < options.size() ? byte_at(options, at + 1) : 0;
    if (size < 2 || at + size > options.size()) {
      packet.problem = "TCP option runs past the header";
      return;
    }
    decode_tcp_option(packet, kind, options.subspan(at + 2, size - 2));
    at += size;
  }
}

void decode_tcp(Packet& packet, Bytes segment, std::size_t cut) {
  packet.transport = Transport::kTcp;
  if (segment.size() < 20) {
    packet.problem = "TCP header is cut short";
    return;
  }
  packet.source_port = word_at(segment, 0);
  packet.destination_port = word_at(segment, 2);
  packet.seq = long_at(segment, 4);
  packet.ack = long_at(segment, 8);
  packet.flags = word_at(segment, 12) & 0x1ff;
  packet.window = word_at(segment, 14);
  const std::size_t header = std::size_t{4} * (byte_at(segment, 12) >> 4);
  if (header < 20 || header > segment.size() + cut) {
    packet.problem = "TCP data offset is wrong";
    return;
  }
  const std::size_t here = std::min(header, segment.size());
  decode_tcp_options(packet, segment.subspan(20, here - 20));
  if (here < header) packet.problem.clear();  // an option may well run past what was captured
  packet.payload_offset += here;
  packet.length = segment.size() + cut - header;
}

void decode_udp(Packet& packet, Bytes datagram, std::size_t cut) {
  packet.transport = Transport::kUdp;
  if (datagram.size() < 8) {
    packet.problem = "UDP header is cut short";
    return;
  }
  packet.source_port = word_at(datagram, 0);
  packet.destination_port = word_at(datagram, 2);
  const std::size_t length = word_at(datagram, 4);
  if (length < 8 || length > datagram.size() + cut) {
    packet.problem = "UDP length is wrong";
    return;
  }
  packet.payload_offset += 8;
  packet.length = length - 8;
}

void decode_icmp(Packet& packet, Transport transport, Bytes message, std::size_t cut) {
  packet.transport = transport;
  if (message.size() < 8) {
    packet.problem = "ICMP header is cut short";
    return;
  }
  packet.icmp_type = byte_at(message, 0);
  packet.icmp_code = byte_at(message, 1);
  packet.payload_offset += 8;
  packet.length = message.size() + cut - 8;
}

void decode_transport(Packet& packet, std::uint8_t protocol, Bytes source, Bytes destination,
                      Bytes segment, std::size_t cut) {
  bool checked = cut == 0;
  switch (protocol) {
    case IPPROTO_TCP:
      decode_tcp(packet, segment, cut);
      break;
    case IPPROTO_UDP:
      decode_udp(packet, segment, cut);
      // RFC 768: zero means that the sender computed none.
      checked = checked && segment.size() >= 8 && word_at(segment, 6) != 0;
      break;
    case IPPROTO_ICMP:
      decode_icmp(packet, Transport::kIcmp, segment, cut);
      if (!checked) return;
      packet.checksum =
          checksum_finish(checksum_add(segment, 0)) == 0 ? Checksum::kOk : Checksum::kBad;
      return;
    case IPPROTO_ICMPV6:
      decode_icmp(packet, Transport::kIcmp6, segment, cut);
      break;
    default:
      packet.length = segment.size() + cut;
      return;
  }
  if (!checked || !packet.problem.empty()) return;
  packet.checksum = transport_checksum_ok(source, destination, protocol, segment) ? Checksum::kOk
                                                                                  : Checksum::kBad;
}

void decode_ipv4(Packet& packet, Bytes bytes, std::size_t cut) {
  packet.family = AF_INET;
  if (bytes.size() < 20 || (byte_at(bytes, 0) >> 4) != 4) {
    packet.problem = "IPv4 header is cut short";
    return;
  }
  const std::size_t header = std::size_t{4} * (byte_at(bytes, 0) & 0x0f);
  const std::size_t total = word_at(bytes, 2);
  packet.source = address_text(AF_INET, bytes.subspan(12, 4));
  packet.destination = address_text(AF_INET, bytes.subspan(16, 4));
  packet.ttl = byte_at(bytes, 8);
  if (header < 20 || total < header || total > bytes.size() + cut || header > bytes.size()) {
    packet.problem = "IPv4 length is wrong";
    return;
  }
  packet.payload_offset += header;
  if ((word_at(bytes, 6) & 0x1fff) != 0) {  // a later fragment has no transport header
    packet.length = total - header;
    return;
  }
  const std::size_t end = std::min(total, bytes.size());
  decode_transport(packet, byte_at(bytes, 9), bytes.subspan(12, 4), bytes.subspan(16, 4),
                   bytes.subspan(header, end - header), total - end);
}

bool is_ipv6_extension(std::uint8_t next) { return next == 0 || next == 43 || next == 60; }

void decode_ipv6(Packet& packet, Bytes bytes, std::size_t cut) {
  packet.family = AF_INET6;
  if (bytes.size() < 40 || (byte_at(bytes, 0) >> 4) != 6) {
    packet.problem = "IPv6 header is cut short";
    return;
  }
  packet.source = address_text(AF_INET6, bytes.subspan(8, 16));
  packet.destination = address_text(AF_INET6, bytes.subspan(24, 16));
  packet.ttl = byte_at(bytes, 7);
  const std::size_t total = 40 + std::size_t{word_at(bytes, 4)};
  if (total > bytes.size() + cut) {
    packet.problem = "IPv6 length is wrong";
    return;
  }
  const std::size_t end = std::min(total, bytes.size());
  std::uint8_t next = byte_at(bytes, 6);
  std::size_t at = 40;
  while (is_ipv6_extension(next)) {
    if (at + 8 > end) {
      packet.problem = "IPv6 extension header is cut short";
      return;
    }
    next = byte_at(bytes, at);
    at += 8 + std::size_t{8} * byte_at(bytes, at + 1);
  }
  if (at > end) {
    packet.problem = "IPv6 extension header is cut short";
    return;
  }
  packet.payload_offset += at;
  decode_transport(packet, next, bytes.subspan(8, 16), bytes.subspan(24, 16),
                   bytes.subspan(at, end - at), total - end);
}

void decode_arp(Packet& packet, Bytes bytes) {
  packet.transport = Transport::kArp;
  if (bytes.size() < 28) {
    packet.problem = "ARP packet is cut short";
    return;
  }
  packet.arp_operation = word_at(bytes, 6);
  packet.source = address_text(AF_INET, bytes.subspan(14, 4));
  packet.destination = address_text(AF_INET, bytes.subspan(24, 4));
}

// What the address family in front of a BSD loopback packet means: 2 is IPv4 everywhere, IPv6 has a
// number of its own in each system.
std::uint16_t ether_type_of_family(std::uint32_t family) {
  if (family == 2) return kEtherIpv4;
  return family == 10 || family == 24 || family == 28 || family == 30 ? kEtherIpv6 : 0;
}

// The family is a number in the capturing machine's byte order, and is less than 65,536.
std::uint16_t decode_null(Bytes frame) {
  const std::uint32_t family = long_at(frame, 0);
  if (family < 0x10000) return ether_type_of_family(family);
  return ether_type_of_family(byte_at(frame, 0) | std::uint32_t{byte_at(frame, 1)} << 8);
}

std::uint16_t decode_raw(Bytes frame) {
  const int version = frame.empty() ? 0 : byte_at(frame, 0) >> 4;
  return version == 4 ? kEtherIpv4 : version == 6 ? kEtherIpv6 : 0;
}

bool is_vlan(std::uint16_t type) { return type == kEtherVlan || type == kEtherServiceVlan; }

// How long each header is at least; absent for a link type that is not known.
std::optional<std::size_t> header_size(LinkType link) {
  switch (link) {
    case LinkType::kEthernet:
      return 14;
    case LinkType::kLinuxCooked:
      return 16;
    case LinkType::kLinuxCooked2:
      return 20;
    case LinkType::kNull:
    case LinkType::kLoop:
      return 4;
    case LinkType::kRaw:
    case LinkType::kRawIpv4:
    case LinkType::kRawIpv6:
      return 0;
  }
  return std::nullopt;
}

std::uint16_t ether_type(Packet& packet, Bytes frame, LinkType link) {
  switch (link) {
    case LinkType::kEthernet:
      packet.destination_mac = mac_text(frame.subspan(0, 6));
      packet.source_mac = mac_text(frame.subspan(6, 6));
      return word_at(frame, 12);
    case LinkType::kLinuxCooked:
      return word_at(frame, 14);
    case LinkType::kLinuxCooked2:
      return word_at(frame, 0);
    case LinkType::kNull:
    case LinkType::kLoop:  // as kNull, and always big-endian
      return decode_null(frame);
    case LinkType::kRaw:
      return decode_raw(frame);
    case LinkType::kRawIpv4:
      return kEtherIpv4;
    case LinkType::kRawIpv6:
      return kEtherIpv6;
  }
  return 0;
}

// Reads the header before IP and returns its size, VLAN tags included; absent when it is damaged.
std::optional<std::size_t> decode_link(Packet& packet, Bytes frame, LinkType link) {
  std::optional<std::size_t> header = header_size(link);
  if (!header || frame.size() < *header) {
    packet.problem = header ? "link header is cut short" : "link type is not known";
    return std::nullopt;
  }
  packet.ether_type = ether_type(packet, frame, link);
  while (is_vlan(packet.ether_type) && frame.size() >= *header + 4) {
    packet.ether_type = word_at(frame, *header + 2);
    *header += 4;
  }
  return header;
}

std::string end_text(const Packet& packet, const std::string& address, std::uint16_t port) {
  const std::string shown = packet.family == AF_INET6 ? "[" + address + "]" : address;
  return shown + ":" + std::to_string(port);
}

}  // namespace

const char* transport_name(Transport transport) {
  switch (transport) {
    case Transport::kTcp:
      return "tcp";
    case Transport::kUdp:
      return "udp";
    case Transport::kIcmp:
      return "icmp";
    case Transport::kIcmp6:
      return "icmp6";
    case Transport::kArp:
      return "arp";
    case Transport::kOther:
      break;
  }
  return "other";
}

std::vector<std::string> flag_names(std::uint16_t flags) {
  std::vector<std::string> names;
  for (const FlagName& entry : kFlags) {
    if ((flags & entry.value) != 0) names.emplace_back(entry.name);
  }
  return names;
}

std::uint16_t flag_value(const std::string& name) {
  for (const FlagName& entry : kFlags) {
    if (name == entry.name) return entry.value;
  }
  return 0;
}

std::uint32_t checksum_add(Bytes bytes, std::uint32_t sum) {
  std::size_t at = 0;
  for (; at + 1 < bytes.size(); at += 2) {
    sum += word_at(bytes, at);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  if (at < bytes.size()) sum += std::uint32_t{byte_at(bytes, at)} << 8;
  return sum;
}

std::uint16_t checksum_finish(std::uint32_t sum) {
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

Packet decode(Bytes frame, LinkType link, std::size_t cut) {
  Packet packet;
  const std::optional<std::size_t> header = decode_link(packet, frame, link);
  if (!header) return packet;
  packet.payload_offset = *header;
  const Bytes body = frame.subspan(*header);
  switch (packet.ether_type) {
    case kEtherIpv4:
      decode_ipv4(packet, body, cut);
      break;
    case kEtherIpv6:
      decode_ipv6(packet, body, cut);
      break;
    case kEtherArp:
      decode_arp(packet, body);
      break;
    default:
      packet.length = body.size() + cut;
  }
  return packet;
}

Conversations::Relative Conversations::feed(const Packet& packet) {
  if (packet.transport != Transport::kTcp) return {};
  const End source{packet.source, packet.source_port};
  const End destination{packet.destination, packet.destination_port};
  const bool syn = (packet.flags & flag::kSyn) != 0;
  if (syn) {
    initial_[{source, destination}] = packet.seq;
  } else {
    initial_.try_emplace({source, destination}, packet.seq);
  }
  Relative relative;
  relative.seq = packet.seq - initial_[{source, destination}];
  if ((packet.flags & flag::kAck) != 0) {
    const auto other = initial_.try_emplace({destination, source}, packet.ack).first;
    relative.ack = packet.ack - other->second;
  }
  return relative;
}

std::string summary(const Packet& packet, const Conversations::Relative& relative) {
  std::string text;
  for (const char* at = transport_name(packet.transport); *at != '\0'; ++at) {
    text += *at >= 'a' && *at <= 'z' ? static_cast<char>(*at - 'a' + 'A') : *at;
  }
  if (packet.transport == Transport::kTcp || packet.transport == Transport::kUdp) {
    text += " " + end_text(packet, packet.source, packet.source_port) + " > " +
            end_text(packet, packet.destination, packet.destination_port);
  } else if (!packet.source.empty()) {
    text += " " + packet.source + " > " + packet.destination;
  }
  if (packet.transport == Transport::kTcp) {
    for (const std::string& name : flag_names(packet.flags)) text += " " + name;
    text += " seq=" + std::to_string(relative.seq);
    if ((packet.flags & flag::kAck) != 0) text += " ack=" + std::to_string(relative.ack);
    text += " win=" + std::to_string(packet.window);
  }
  if (packet.transport == Transport::kIcmp || packet.transport == Transport::kIcmp6) {
    text +=
        " type=" + std::to_string(packet.icmp_type) + " code=" + std::to_string(packet.icmp_code);
  }
  text += " len=" + std::to_string(packet.length);
  if (!packet.problem.empty()) text += " (" + packet.problem + ")";
  return text;
}

}  // namespace testbed
