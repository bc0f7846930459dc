#include "rules.h"

#include <sys/socket.h>

#include <array>
#include <utility>

#include "refusal.h"

namespace testbed {
namespace {

using nlohmann::json;

std::uint16_t parse_flags(const json& value) {
  std::uint16_t flags = 0;
  for (const json& name : value.is_array() ? value : json::array({value})) {
    const std::uint16_t bit = flag_value(name.get<std::string>());
    if (bit == 0) throw Refusal("usage", "no TCP flag named " + name.get<std::string>());
    flags |= bit;
  }
  return flags;
}

Transport parse_transport(const std::string& name) {
  for (const Transport transport : {Transport::kTcp, Transport::kUdp, Transport::kIcmp,
                                    Transport::kIcmp6, Transport::kArp, Transport::kOther}) {
    if (name == transport_name(transport)) return transport;
  }
  throw Refusal("usage", "no transport named " + name);
}

int parse_family(const std::string& name) {
  if (name == "inet") return AF_INET;
  if (name == "inet6") return AF_INET6;
  throw Refusal("usage", "no family named " + name);
}

constexpr std::array<std::pair<const char*, Act>, 6> kActs = {{{"drop", Act::kDrop},
                                                               {"hold", Act::kHold},
                                                               {"delay", Act::kDelay},
                                                               {"duplicate", Act::kDuplicate},
                                                               {"reorder", Act::kReorder},
                                                               {"corrupt", Act::kCorrupt}}};

}  // namespace

bool Match::fits(const Packet& packet, const std::string& source_host,
                 const std::string& destination_host) const {
  if (!from.empty() && from != source_host) return false;
  if (!to.empty() && to != destination_host) return false;
  if (transport && *transport != packet.transport) return false;
  if (family != 0 && family != packet.family) return false;
  if ((packet.flags & flags) != flags || (packet.flags & without) != 0) return false;
  if (min_length && packet.length < *min_length) return false;
  if (max_length && packet.length > *max_length) return false;
  if (source_port && *source_port != packet.source_port) return false;
  return !destination_port || *destination_port == packet.destination_port;
}

Match parse_match(const json& object) {
  Match match;
  for (const auto& [key, value] : object.items()) {
    if (key == "from")
      match.from = value.get<std::string>();
    else if (key == "to")
      match.to = value.get<std::string>();
    else if (key == "transport")
      match.transport = parse_transport(value.get<std::string>());
    else if (key == "flags")
      match.flags = parse_flags(value);
    else if (key == "without")
      match.without = parse_flags(value);
    else if (key == "min_length")
      match.min_length = value.get<std::size_t>();
    else if (key == "max_length")
      match.max_length = value.get<std::size_t>();
    else if (key == "source_port")
      match.source_port = value.get<std::uint16_t>();
    else if (key == "destination_port")
      match.destination_port = value.get<std::uint16_t>();
    else if (key == "nth")
      match.nth = value.get<std::uint64_t>();
    else if (key == "family")
      match.family = parse_family(value.get<std::string>());
    else
      throw Refusal("usage", "a match has no field " + key);
  }
  if (match.flags != 0 || match.without != 0) match.transport = Transport::kTcp;
  return match;
}

const char* act_name(Act act) {
  for (const auto& [name, value] : kActs) {
    if (value == act) return name;
  }
  return "";
}

Action parse_action(const json& request) {
  Action action;
  const std::string name = request.at("action").get<std::string>();
  bool known = false;
  for (const auto& [text, act] : kActs) {
    if (name != text) continue;
    action.act = act;
    known = true;
  }
  if (!known) throw Refusal("usage", "no action named " + name);
  action.delay = request.value("ms", std::int64_t{0}) * 1'000'000;
  action.copies = request.value("copies", std::uint64_t{1});
  action.behind = request.value("behind", std::uint64_t{1});
  action.offset = request.value("offset", std::size_t{0});
  action.mask = request.value("xor", std::uint8_t{0xff});
  return action;
}

bool Rule::applies(const Packet& packet, const std::string& source_host,
                   const std::string& destination_host) {
  if (times == 0 || !match.fits(packet, source_host, destination_host)) return false;
  ++seen;
  if (match.nth && seen != *match.nth) return false;
  if (times) --*times;
  return true;
}

}  // namespace testbed
