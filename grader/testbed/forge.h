// forge.h - frames that no host sent: a reset or an ICMP error, made to fit a real conversation.
//
// Free functions without state; thread-safe. Sources: RFC 9293 section 3.5.2 (reset), RFC 792 and
// RFC 4443 section 3.1 (destination unreachable).

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "decode.h"
#include "socket_table.h"

namespace testbed {

// `source_mac` and `destination_mac` are the last bytes of the hosts' addresses (hosts.h).
struct Route {
  std::uint8_t source_mac, destination_mac;
};

// A TCP segment with the RST flag, sequence number `seq`, no data.
std::vector<std::byte> forge_reset(const Route& route, const End& source, const End& destination,
                                   std::uint32_t seq);

// ICMP or ICMPv6 "destination unreachable" with `code`, from `source`, that answers `offending`.
std::vector<std::byte> forge_unreachable(const Route& route, const std::string& source,
                                         std::uint8_t code, std::span<const std::byte> offending);

}  // namespace testbed
