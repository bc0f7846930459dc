#include "facts.h"

#include <sys/socket.h>

#include "refusal.h"

namespace testbed {
namespace {

using nlohmann::json;

constexpr const char* kTimers[] = {"none", "retransmit", "keepalive", "time-wait", "zero-window"};

const char* family_name(int family) {
  if (family == AF_INET) return "inet";
  return family == AF_INET6 ? "inet6" : "other";
}

json to_json(const TcpOptions& options) {
  json object = json::object();
  if (options.mss) object["mss"] = *options.mss;
  if (options.window_scale) object["window_scale"] = *options.window_scale;
  if (options.sack_permitted) object["sack_permitted"] = true;
  if (options.timestamps)
    object["timestamps"] = {options.timestamps->first, options.timestamps->second};
  for (const auto& [left, right] : options.sack) object["sack"].push_back({left, right});
  return object;
}

const char* checksum_word(Checksum checksum) {
  if (checksum == Checksum::kAbsent) return "absent";
  return checksum == Checksum::kOk ? "ok" : "bad";
}

}  // namespace

json to_json(const End& end) { return json::array({end.address, end.port}); }

json to_json(const Row& row, const std::vector<pid_t>& owners) {
  return {{"transport", row.protocol == Protocol::kTcp ? "tcp" : "udp"},
          {"family", family_name(row.family)},
          {"mapped", row.mapped},
          {"local", to_json(row.local)},
          {"remote", to_json(row.remote)},
          {"state", row.state},
          {"rqueue", row.rqueue},
          {"wqueue", row.wqueue},
          {"inode", row.inode},
          {"uid", row.uid},
          {"timer", row.timer < std::size(kTimers) ? kTimers[row.timer] : "none"},
          {"timer_ms", row.timer_ms},
          {"retransmits", row.retransmits},
          {"owners", owners}};
}

json to_json(const Process& process) {
  json threads = json::array();
  for (const Thread& thread : process.threads) {
    threads.push_back({{"tid", thread.tid},
                       {"state", std::string(1, thread.state)},
                       {"call", thread.call.empty() ? json() : json(thread.call)},
                       {"timed", thread.timed},
                       {"switches", thread.switches}});
  }
  return {{"pid", process.pid},         {"parent", process.parent},
          {"command", process.command}, {"state", std::string(1, process.state)},
          {"threads", threads},         {"fds", process.fds},
          {"sockets", process.sockets}, {"vm_size", process.vm_size},
          {"vm_rss", process.vm_rss},   {"cpu_ns", process.cpu_ns}};
}

json to_json(const Packet& packet, std::size_t number, const Conversations::Relative& relative) {
  json object = {{"number", number},
                 {"family", family_name(packet.family)},
                 {"transport", transport_name(packet.transport)},
                 {"source", to_json(End{packet.source, packet.source_port})},
                 {"destination", to_json(End{packet.destination, packet.destination_port})},
                 {"length", packet.length},
                 {"checksum", checksum_word(packet.checksum)},
                 {"problem", packet.problem.empty() ? json() : json(packet.problem)},
                 {"summary", summary(packet, relative)}};
  if (packet.transport == Transport::kTcp) {
    object["flags"] = flag_names(packet.flags);
    object["seq"] = relative.seq;
    object["ack"] = relative.ack;
    object["seq_raw"] = packet.seq;
    object["ack_raw"] = packet.ack;
    object["window"] = packet.window;
    object["options"] = to_json(packet.options);
  }
  if (packet.transport == Transport::kIcmp || packet.transport == Transport::kIcmp6) {
    object["icmp"] = {packet.icmp_type, packet.icmp_code};
  }
  return object;
}

json to_json(const Packet& packet, const Passage& passage, std::size_t number,
             const Conversations::Relative& relative, const Network& network) {
  const auto name = [&](int index) {
    return index < 0 ? json() : json(network.hosts()[static_cast<std::size_t>(index)].name);
  };
  json object = to_json(packet, number, relative);
  object["time"] = passage.time;
  object["from"] = name(passage.from);
  object["to"] = name(passage.to);
  object["fate"] = fate_name(passage.fate);
  object["rule"] = passage.rule == 0 ? json() : json(passage.rule);
  return object;
}

End parse_end(const json& value) {
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() ||
      !value[1].is_number_unsigned() || value[1].get<std::uint64_t>() > 65535) {
    throw Refusal("usage", "an address is a pair [ADDRESS, PORT]");
  }
  return {value[0].get<std::string>(), value[1].get<std::uint16_t>()};
}

}  // namespace testbed
