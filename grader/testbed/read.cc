#include "read.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "facts.h"
#include "pcap_reader.h"
#include "states.h"

namespace testbed {
namespace {

using nlohmann::json;

std::ifstream open_capture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw NoCapture(std::strerror(errno));
  return file;
}

// What the first reading finds.
struct Survey {
  std::size_t packets = 0;
  std::int64_t origin = 0;  // time of the earliest packet
  std::set<std::string> inet, inet6;
  std::vector<Transition> transitions;  // `time` is the number of a packet: after it they hold
  std::string left_out;
};

void add_sentence(std::string& text, const std::string& sentence) {
  text += (text.empty() ? "" : "; ") + sentence;
}

std::string left_out(const PcapReader& reader, const States::LeftOut& states, std::size_t limit,
                     bool more) {
  std::string text = reader.problem();
  if (more) add_sentence(text, "only the first " + std::to_string(limit) + " packets were read");
  if (states.packets > 0) {
    add_sentence(text, "no states were inferred from " + std::to_string(states.packets) +
                           " packets of connections past the first " +
                           std::to_string(States::kMostEndpoints / 2));
  }
  if (states.ranges > 0) {
    add_sentence(
        text, std::to_string(states.ranges) + " segments out of order were left out of the states");
  }
  return text;
}

Survey survey(const std::string& path, std::size_t limit) {
  std::ifstream file = open_capture(path);
  PcapReader reader(file);
  States states;
  Survey found;
  bool more = false;
  while (const auto frame = reader.next()) {
    more = found.packets == limit;
    if (more) break;
    // Captures that were put together may go back in time.
    found.origin = found.packets++ == 0 ? frame->time : std::min(found.origin, frame->time);
    const Packet packet = decode(frame->bytes, frame->link, frame->cut);
    if (packet.family != 0 && !packet.source.empty()) {
      auto& hosts = packet.family == AF_INET ? found.inet : found.inet6;
      hosts.insert({packet.source, packet.destination});
    }
    const States::Event event{static_cast<std::int64_t>(found.packets), found.packets, 0};
    states.sent(event, packet);
    states.delivered(event, packet);
  }
  found.transitions = states.finish();
  found.left_out = left_out(reader, states.left_out(), limit, more);
  return found;
}

json hosts_of(const Survey& found) {
  json hosts = json::object();
  for (const std::string& address : found.inet) hosts[address] = {{"inet", address}};
  for (const std::string& address : found.inet6) hosts[address] = {{"inet6", address}};
  return hosts;
}

class Writer {
 public:
  explicit Writer(std::ostream& out) : out_(out) {}
  void write(std::int64_t time, const char* kind, const char* source, const json& facts) {
    const json record = {
        {"n", next_++}, {"time", time}, {"kind", kind}, {"source", source}, {kind, facts}};
    out_ << record.dump() << '\n';
  }

 private:
  std::ostream& out_;
  std::size_t next_ = 0;
};

json packet_facts(const Packet& packet, std::size_t number, std::int64_t time,
                  const Conversations::Relative& relative) {
  json facts = to_json(packet, number, relative);
  const bool named = packet.family != 0 && !packet.source.empty();
  facts["time"] = time;
  facts["from"] = named ? json(packet.source) : json();
  facts["to"] = named ? json(packet.destination) : json();
  facts["fate"] = "forwarded";
  facts["rule"] = nullptr;
  return facts;
}

json state_facts(const Transition& change) {
  return {{"host", change.local.address},
          {"local", to_json(change.local)},
          {"remote", to_json(change.remote)},
          {"from", change.from ? json(state_name(*change.from)) : json()},
          {"to", state_name(change.to)},
          {"because", "packet " + std::to_string(change.packet)}};
}

void write_packets(const std::string& path, const Survey& found, Writer& writer) {
  std::ifstream file = open_capture(path);
  PcapReader reader(file);
  Conversations conversations;
  auto change = found.transitions.begin();
  for (std::size_t number = 1; number <= found.packets; ++number) {
    const auto frame = reader.next();
    if (!frame) throw NoCapture("it changed while it was read");
    const Packet packet = decode(frame->bytes, frame->link, frame->cut);
    const std::int64_t time = frame->time - found.origin;
    writer.write(time, "packet", "observed",
                 packet_facts(packet, number, time, conversations.feed(packet)));
    for (; change != found.transitions.end() && change->time <= static_cast<std::int64_t>(number);
         ++change) {
      writer.write(time, "state", "inferred", state_facts(*change));
    }
  }
}

}  // namespace

std::string read_capture(const std::string& path, std::size_t limit, std::ostream& out) {
  const Survey found = survey(path, limit);
  Writer writer(out);
  const json data = {{"version", 1}, {"hosts", hosts_of(found)}, {"tier", nullptr}};
  writer.write(0, "note", "observed", {{"text", "trace"}, {"data", data}});
  write_packets(path, found, writer);
  if (!found.left_out.empty()) {
    writer.write(0, "note", "observed", {{"text", found.left_out}, {"data", json::object()}});
  }
  return found.left_out;
}

}  // namespace testbed
