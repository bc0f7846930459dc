// link.h - the wire between the hosts: forwards, captures and, where a rule says so, interferes.
//
// One packet(7) socket in the link's own namespace receives the frames of all hosts in the order
// in which the kernel saw them; each goes out on the interface of the host it is addressed to (or
// of all others, for broadcast and multicast). Every frame is captured as its host sent it. A frame
// that could neither be forwarded nor captured is counted as lost, and a loss voids the run.
// Not thread-safe; the owner calls receive() when descriptor() is readable and tick() when due.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "hosts.h"
#include "packet_ring.h"
#include "pcap.h"
#include "rules.h"

namespace testbed {

enum class Fate {
  kForwarded,
  kDropped,
  kHeld,
  kReleased,
  kDuplicated,
  kCorrupted,
  kInjected,
  kLost
};
const char* fate_name(Fate fate);

// What the link remembers of one captured frame besides its bytes.
struct Passage {
  std::int64_t time = 0;
  int from = 0;  // position in Network::hosts()
  int to = -1;   // -1: several (broadcast, multicast)
  Fate fate = Fate::kForwarded;
  std::uint64_t rule = 0;
  std::optional<std::int64_t> delivered;  // when it went on to its receiver, intact
  bool bulk = false;                      // far from all that opens or ends something
};

struct LinkCounts {
  std::uint64_t frames = 0, forwarded = 0, dropped_by_rule = 0, lost = 0;
  std::uint64_t moving = 0;  // frames that carry data or change a state: not mere acknowledgements
};

class Link {
 public:
  using Clock = std::function<std::int64_t()>;
  // `captured(index)` is called once for each frame put into the capture, in order.
  Link(Network& network, Clock clock, std::int64_t realtime, std::uint64_t capture_limit,
       std::function<void(std::size_t)> captured);

  [[nodiscard]] int descriptor() const noexcept { return ring_.descriptor(); }
  // Takes what waits in the ring, at most one batch. True when there may be more.
  bool receive();
  // Sends what a delay has kept long enough; returns when it wants to be called next, if ever.
  std::optional<std::int64_t> tick();

  std::uint64_t add_rule(Match match, Action action, std::optional<std::uint64_t> times);
  // Frames held by the rule go on in order (`forward`) or are dropped; the rule ends.
  void end_rule(std::uint64_t number, bool forward);
  // Sends a frame that no host sent, to `to`, as if from `from`. Returns its packet number.
  std::uint64_t inject(int from, int to, std::vector<std::byte> frame);

  [[nodiscard]] const LinkCounts& counts() const noexcept { return counts_; }
  [[nodiscard]] std::uint64_t held() const noexcept;
  [[nodiscard]] const Capture& capture() const noexcept { return capture_; }
  [[nodiscard]] const std::vector<Passage>& passages() const noexcept { return passages_; }
  // Lost frames by place: "ring", "send", "veth". Asks the kernel.
  std::map<std::string, std::uint64_t> losses();
  // Captured frames, numbered from 1, that `match` fits (its `nth` aside), counting from `first`.
  [[nodiscard]] std::uint64_t count_matches(const Match& match, std::size_t first) const;
  [[nodiscard]] Packet packet(std::size_t index) const;

 private:
  struct Arrival {
    Passage passage;
    std::span<const std::byte> bytes;
  };
  struct Kept {  // a frame that waits: for a release, a time or for others to pass
    std::uint64_t rule = 0;
    int from = 0, to = -1;
    std::vector<std::byte> bytes;
    std::size_t index = 0;                // of its passage
    std::optional<std::int64_t> due;      // delay
    std::optional<std::uint64_t> behind;  // reorder: frames that still must pass
  };
  struct Outgoing {
    int interface;
    std::span<const std::byte> bytes;
  };

  void handle(std::span<Arrival> arrivals);
  void apply_rules(Arrival& arrival, std::size_t index);
  void act(Rule& rule, Arrival& arrival, std::size_t index, const Packet& packet);
  void keep(const Rule& rule, const Arrival& arrival, std::size_t index);
  void let_pass_behind(int from);
  void route(int from, int to, std::span<const std::byte> bytes);
  void flush();
  void forward_kept(Kept& kept);
  [[nodiscard]] int destination(std::span<const std::byte> frame) const;
  [[nodiscard]] std::string host_name(int index) const;

  Network& network_;
  Clock clock_;
  PacketRing ring_;
  Capture capture_;
  std::function<void(std::size_t)> captured_;
  std::vector<Passage> passages_;
  std::vector<Rule> rules_;
  std::deque<Kept> kept_;
  std::vector<Outgoing> outgoing_;
  std::vector<std::vector<std::byte>> altered_;  // bytes of frames a rule changed, until flush()
  LinkCounts counts_;
  unsigned answers_ = 0;  // frames that still belong to the last that opened or ended something
  std::uint64_t send_failures_ = 0, refused_sends_ = 0, ring_drops_ = 0;
  std::uint64_t next_rule_ = 1;
};

}  // namespace testbed
