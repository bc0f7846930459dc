// decode.h - what one frame says: IPv4/IPv6, TCP, UDP, ICMP, ICMPv6, ARP.
//
// decode() never reads past the frame and never fails: what is damaged is named in `problem`, and
// what could be read before the damage stays. Numbers are in host order. Relative sequence numbers
// need the whole conversation; Conversations adds them. Plain values; decode() is thread-safe.
//
// Sources: RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 826.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace testbed {

enum class Transport { kOther, kTcp, kUdp, kIcmp, kIcmp6, kArp };
const char* transport_name(Transport transport);

// TCP flags as they lie in the header's 16-bit word (RFC 9293 section 3.1, RFC 3540 for NS).
namespace flag {
constexpr std::uint16_t kFin = 0x001, kSyn = 0x002, kRst = 0x004, kPsh = 0x008, kAck = 0x010,
                        kUrg = 0x020, kEce = 0x040, kCwr = 0x080, kAe = 0x100;
}
std::vector<std::string> flag_names(std::uint16_t flags);  // in the order SYN FIN RST PSH ACK …
std::uint16_t flag_value(const std::string& name);         // 0 if there is no such flag

enum class Checksum { kAbsent, kOk, kBad };

struct TcpOptions {
  std::optional<std::uint16_t> mss;
  std::optional<std::uint8_t> window_scale;
  bool sack_permitted = false;
  std::optional<std::pair<std::uint32_t, std::uint32_t>> timestamps;  // TSval, TSecr
  std::vector<std::pair<std::uint32_t, std::uint32_t>> sack;          // left edge, right edge
};

struct Packet {
  Transport transport = Transport::kOther;
  int family = 0;  // AF_INET, AF_INET6, 0 for anything else
  std::string source_mac, destination_mac;
  std::string source, destination;  // numeric addresses
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint16_t flags = 0;
  std::uint32_t seq = 0, ack = 0;  // as on the wire
  std::uint16_t window = 0;        // as on the wire, not scaled
  TcpOptions options;
  std::uint8_t ttl = 0;  // or hop limit
  std::uint8_t icmp_type = 0, icmp_code = 0;
  std::uint16_t ether_type = 0;
  std::uint16_t arp_operation = 0;
  std::size_t payload_offset = 0;  // of the payload within the frame
  std::size_t length = 0;          // of the payload, in bytes
  Checksum checksum = Checksum::kAbsent;
  std::string problem;  // empty: nothing wrong was seen
};

// The headers before IP, by their numbers in capture files (LINKTYPE_ of pcap-linktype(7)).
enum class LinkType : std::uint32_t {
  kNull = 0,
  kEthernet = 1,
  kRaw = 101,
  kLoop = 108,
  kLinuxCooked = 113,
  kRawIpv4 = 228,
  kRawIpv6 = 229,
  kLinuxCooked2 = 276
};

// `cut`: so many bytes of the frame's end were not captured. Lengths are still those of the whole
// packet; the checksum is then absent.
Packet decode(std::span<const std::byte> frame, LinkType link = LinkType::kEthernet,
              std::size_t cut = 0);

// The Internet checksum (RFC 1071) of `bytes`, starting from `sum`; not yet complemented.
std::uint32_t checksum_add(std::span<const std::byte> bytes, std::uint32_t sum);
std::uint16_t checksum_finish(std::uint32_t sum);

// Remembers the initial sequence numbers of each connection, fed with packets in wire order.
class Conversations {
 public:
  struct Relative {
    std::uint32_t seq = 0, ack = 0;
  };
  // Feeds one packet and tells its numbers relative to the connection's initial ones. A connection
  // whose SYN was not seen counts from the first packet seen of each side.
  Relative feed(const Packet& packet);

 private:
  using End = std::tuple<std::string, std::uint16_t>;
  std::map<std::pair<End, End>, std::uint32_t> initial_;
};

// One line for people: "TCP 192.0.2.2:40000 > 192.0.2.1:7000 SYN seq=0 win=64240 len=0".
std::string summary(const Packet& packet, const Conversations::Relative& relative);

}  // namespace testbed
