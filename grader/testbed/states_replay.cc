// states_replay CAPTURE - what States infers from a capture and from what became of its packets.
//
// For the tests. Reads lines "sent NUMBER TIME HOST" and "delivered NUMBER TIME HOST" from standard
// input, HOST a number, and prints one transition a line:
// "TIME HOST LOCAL_PORT REMOTE_PORT FROM TO PACKET".

#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "pcap_reader.h"
#include "states.h"

namespace {

std::vector<testbed::Packet> packets_of(const char* path) {
  std::ifstream file(path, std::ios::binary);
  testbed::PcapReader reader(file);
  std::vector<testbed::Packet> packets;
  while (const auto frame = reader.next()) {
    packets.push_back(testbed::decode(frame->bytes, frame->link, frame->cut));
  }
  return packets;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::vector<testbed::Packet> packets = packets_of(argv[1]);
  testbed::States states;
  std::string what;
  testbed::States::Event event{};
  while (std::cin >> what >> event.number >> event.time >> event.host) {
    const testbed::Packet& packet = packets.at(event.number - 1);
    if (what == "sent") {
      states.sent(event, packet);
    } else {
      states.delivered(event, packet);
    }
  }
  for (const testbed::Transition& change : states.finish()) {
    std::cout << change.time << ' ' << change.host << ' ' << change.local.port << ' '
              << change.remote.port << ' '
              << (change.from ? testbed::state_name(*change.from) : "-") << ' '
              << testbed::state_name(change.to) << ' ' << change.packet << '\n';
  }
}
