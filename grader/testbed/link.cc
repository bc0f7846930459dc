#include "link.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <limits>
#include <memory>
#include <utility>

#include "refusal.h"
#include "sock/error.h"

namespace testbed {
namespace {

constexpr std::size_t kBatch = 64;
constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();  // not captured

std::int64_t realtime_now() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The arguments of one sendmmsg(2) call, made once.
struct Batch {
  std::array<sockaddr_ll, kBatch> addresses;
  std::array<iovec, kBatch> vectors;
  std::array<mmsghdr, kBatch> messages;
};

struct Glance {
  bool moving = true;   // it carries data or opens or ends something: no mere acknowledgement
  bool telling = true;  // it opens or ends something, or is neither TCP nor UDP
};

// Reads the fixed places of the headers only, since it is asked of every frame.
Glance glance(std::span<const std::byte> frame) {
  const auto at = [&](std::size_t i) { return std::to_integer<std::size_t>(frame[i]); };
  if (frame.size() < 54) return {};
  const std::size_t type = at(12) << 8 | at(13);
  const bool v4 = type == ETH_P_IP, v6 = type == ETH_P_IPV6;
  const std::size_t protocol = v4 ? at(23) : v6 ? at(20) : 0;
  if (protocol != IPPROTO_TCP) return {v4 || protocol == IPPROTO_UDP, protocol != IPPROTO_UDP};
  const std::size_t segment = v4 ? 14 + 4 * (at(14) & 0x0f) : 54;
  const std::size_t end = v4 ? 14 + (at(16) << 8 | at(17)) : 54 + (at(18) << 8 | at(19));
  if (segment + 20 > frame.size() || end > frame.size()) return {};
  constexpr std::size_t kChanging = flag::kSyn | flag::kFin | flag::kRst;
  const bool changing = (at(segment + 13) & kChanging) != 0;
  return {changing || end > segment + 4 * (at(segment + 12) >> 4), changing};
}

}  // namespace

const char* fate_name(Fate fate) {
  switch (fate) {
    case Fate::kForwarded:
      return "forwarded";
    case Fate::kDropped:
      return "dropped";
    case Fate::kHeld:
      return "held";
    case Fate::kReleased:
      return "released";
    case Fate::kDuplicated:
      return "duplicated";
    case Fate::kCorrupted:
      return "corrupted";
    case Fate::kInjected:
      return "injected";
    case Fate::kLost:
      return "lost";
  }
  return "";
}

Link::Link(Network& network, Clock clock, std::int64_t realtime, std::uint64_t capture_limit,
           std::function<void(std::size_t)> captured)
    : network_(network),
      clock_(std::move(clock)),
      capture_(capture_limit, realtime),
      captured_(std::move(captured)) {}

bool Link::receive() {
  std::array<PacketRing::Frame, kBatch> frames;
  const std::size_t count = ring_.peek(frames);
  // The kernel stamps frames with CLOCK_REALTIME, which may be set at any time: compare each time.
  const std::int64_t to_own_clock = clock_() - realtime_now();
  std::array<Arrival, kBatch> arrivals;
  std::size_t used = 0;
  for (const PacketRing::Frame& frame : std::span(frames).first(count)) {
    const Host* host = network_.by_link_index(frame.interface);
    if (host == nullptr) continue;
    Arrival& arrival = arrivals[used++];
    arrival.bytes = frame.bytes;
    arrival.passage.time = frame.realtime + to_own_clock;
    arrival.passage.delivered = arrival.passage.time;
    arrival.passage.from = static_cast<int>(host - network_.hosts().data());
    arrival.passage.to = destination(arrival.bytes);
  }
  handle(std::span(arrivals).first(used));
  ring_.release(count);
  return count == kBatch;
}

void Link::handle(std::span<Arrival> arrivals) {
  std::array<Capture::Frame, kBatch> frames;
  for (std::size_t i = 0; i < arrivals.size(); ++i) {
    frames[i] = {arrivals[i].passage.time, arrivals[i].bytes};
  }
  const std::size_t kept = capture_.append(std::span(frames).first(arrivals.size()));
  for (std::size_t i = 0; i < arrivals.size(); ++i) {
    ++counts_.frames;
    const Glance seen = glance(arrivals[i].bytes);
    if (seen.moving) ++counts_.moving;
    // When the capture is full, what opens or ends something still goes in, with its answers.
    constexpr unsigned kAnswers = 8;
    answers_ = seen.telling ? kAnswers : answers_ - (answers_ > 0 ? 1 : 0);
    const bool captured = i < kept || (answers_ > 0 && capture_.append_spare(frames[i]));
    arrivals[i].passage.bulk = answers_ == 0;
    const std::size_t index = passages_.size();
    if (captured) passages_.push_back(arrivals[i].passage);
    apply_rules(arrivals[i], captured ? index : kNowhere);
    if (captured) captured_(index);
    let_pass_behind(arrivals[i].passage.from);
  }
  flush();
}

void Link::apply_rules(Arrival& arrival, std::size_t index) {
  if (!rules_.empty()) {
    const Packet decoded = decode(arrival.bytes);
    for (Rule& rule : rules_) {
      if (!rule.applies(decoded, host_name(arrival.passage.from), host_name(arrival.passage.to))) {
        continue;
      }
      act(rule, arrival, index, decoded);
      if (index < passages_.size()) passages_[index] = arrival.passage;
      return;
    }
  }
  route(arrival.passage.from, arrival.passage.to, arrival.bytes);
}

void Link::act(Rule& rule, Arrival& arrival, std::size_t index, const Packet& packet) {
  Passage& passage = arrival.passage;
  passage.rule = rule.number;
  switch (rule.action.act) {
    case Act::kDrop:
      passage.fate = Fate::kDropped;
      passage.delivered.reset();
      ++counts_.dropped_by_rule;
      return;
    case Act::kHold:
    case Act::kDelay:
    case Act::kReorder:
      passage.fate = Fate::kHeld;
      passage.delivered.reset();
      keep(rule, arrival, index);
      return;
    case Act::kDuplicate:
      passage.fate = Fate::kDuplicated;
      for (std::uint64_t i = 0; i <= rule.action.copies; ++i) {
        route(passage.from, passage.to, arrival.bytes);
      }
      return;
    case Act::kCorrupt: {
      passage.fate = Fate::kCorrupted;
      passage.delivered.reset();
      std::vector<std::byte>& bytes =
          altered_.emplace_back(arrival.bytes.begin(), arrival.bytes.end());
      const std::size_t at = packet.payload_offset + rule.action.offset;
      if (at < bytes.size()) bytes[at] ^= std::byte{rule.action.mask};
      // The frames before this one still refer to older entries: a deque would be needed if those
      // could move, but the vectors' own storage stays where it is.
      route(passage.from, passage.to, bytes);
      return;
    }
  }
}

void Link::keep(const Rule& rule, const Arrival& arrival, std::size_t index) {
  Kept& kept = kept_.emplace_back();
  kept.rule = rule.number;
  kept.from = arrival.passage.from;
  kept.to = arrival.passage.to;
  kept.bytes.assign(arrival.bytes.begin(), arrival.bytes.end());
  kept.index = index;
  if (rule.action.act == Act::kDelay) kept.due = arrival.passage.time + rule.action.delay;
  // The frame that is kept passes here too, hence one more.
  if (rule.action.act == Act::kReorder) kept.behind = rule.action.behind + 1;
}

// Lets frames go that waited for others of their direction to pass first.
void Link::let_pass_behind(int from) {
  for (std::size_t i = 0; i < kept_.size();) {
    Kept& kept = kept_[i];
    if (!kept.behind || kept.from != from || --*kept.behind > 0) {
      ++i;
      continue;
    }
    forward_kept(kept);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Link::forward_kept(Kept& kept) {
  if (kept.index < passages_.size()) {
    passages_[kept.index].fate = Fate::kReleased;
    passages_[kept.index].delivered = clock_();
  }
  const std::vector<std::byte>& bytes = altered_.emplace_back(std::move(kept.bytes));
  route(kept.from, kept.to, bytes);
}

std::optional<std::int64_t> Link::tick() {
  std::optional<std::int64_t> next;
  const std::int64_t time = clock_();
  for (std::size_t i = 0; i < kept_.size();) {
    Kept& kept = kept_[i];
    if (!kept.due || *kept.due > time) {
      if (kept.due) next = std::min(next.value_or(*kept.due), *kept.due);
      ++i;
      continue;
    }
    forward_kept(kept);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  flush();
  return next;
}

int Link::destination(std::span<const std::byte> frame) const {
  if (frame.size() < ETH_HLEN) return -1;
  // Host n has the address 02:00:00:00:00:0n; anything else goes to all others.
  constexpr std::array<std::byte, 5> kPrefix = {std::byte{2}, std::byte{0}, std::byte{0},
                                                std::byte{0}, std::byte{0}};
  const auto number = std::to_integer<std::size_t>(frame[5]);
  const bool own = std::equal(kPrefix.begin(), kPrefix.end(), frame.begin());
  return own && number >= 1 && number <= network_.hosts().size() ? static_cast<int>(number) - 1
                                                                 : -1;
}

std::string Link::host_name(int index) const {
  return index < 0 ? std::string() : network_.hosts()[static_cast<std::size_t>(index)].name;
}

void Link::route(int from, int to, std::span<const std::byte> bytes) {
  const std::vector<Host>& hosts = network_.hosts();
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const int host = static_cast<int>(i);
    if (host != to && (to != -1 || host == from)) continue;
    outgoing_.push_back({hosts[i].link_index, bytes});
  }
}

void Link::flush() {
  static const auto batch = std::make_unique<Batch>();
  std::size_t done = 0;
  unsigned refusals = 0;
  while (done < outgoing_.size()) {
    const std::size_t count = std::min(kBatch, outgoing_.size() - done);
    for (std::size_t i = 0; i < count; ++i) {
      const Outgoing& frame = outgoing_[done + i];
      batch->addresses[i] = {};
      batch->addresses[i].sll_family = AF_PACKET;
      batch->addresses[i].sll_ifindex = frame.interface;
      batch->vectors[i] = {const_cast<std::byte*>(frame.bytes.data()), frame.bytes.size()};
      batch->messages[i] = {};
      msghdr& header = batch->messages[i].msg_hdr;
      header.msg_name = &batch->addresses[i];
      header.msg_namelen = sizeof(batch->addresses[i]);
      header.msg_iov = &batch->vectors[i];
      header.msg_iovlen = 1;
    }
    const int sent =
        ::sendmmsg(ring_.descriptor(), batch->messages.data(), static_cast<unsigned>(count), 0);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
      counts_.forwarded += static_cast<std::uint64_t>(sent);
      refusals = 0;
      continue;
    }
    // ENOBUFS: the other side's input queue is full at this moment; the frame was not taken.
    constexpr unsigned kTries = 1000;
    if (errno == ENOBUFS) ++refused_sends_;
    if ((errno == ENOBUFS || errno == EAGAIN || errno == EINTR) && ++refusals < kTries) continue;
    ++send_failures_;
    ++counts_.lost;
    ++done;
    refusals = 0;
  }
  outgoing_.clear();
  altered_.clear();
}

std::uint64_t Link::add_rule(Match match, Action action, std::optional<std::uint64_t> times) {
  Rule& rule = rules_.emplace_back();
  rule.number = next_rule_++;
  rule.match = std::move(match);
  rule.action = action;
  rule.times = times;
  return rule.number;
}

void Link::end_rule(std::uint64_t number, bool forward) {
  const auto rule = std::find_if(rules_.begin(), rules_.end(),
                                 [&](const Rule& entry) { return entry.number == number; });
  if (rule == rules_.end()) throw Refusal("unknown", "no rule " + std::to_string(number));
  rules_.erase(rule);
  for (std::size_t i = 0; i < kept_.size();) {
    Kept& kept = kept_[i];
    if (kept.rule != number) {
      ++i;
      continue;
    }
    if (forward) {
      forward_kept(kept);
    } else {
      ++counts_.dropped_by_rule;
      if (kept.index < passages_.size()) passages_[kept.index].fate = Fate::kDropped;
    }
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  flush();
}

std::uint64_t Link::inject(int from, int to, std::vector<std::byte> frame) {
  Passage passage;
  passage.time = clock_();
  passage.from = from;
  passage.to = to;
  passage.fate = Fate::kInjected;
  passage.delivered = passage.time;
  const Capture::Frame captured{passage.time, frame};
  ++counts_.frames;
  ++counts_.moving;
  if (capture_.append(std::span(&captured, 1)) == 1 || capture_.append_spare(captured)) {
    passages_.push_back(passage);
    captured_(passages_.size() - 1);
  }
  route(from, to, frame);
  flush();
  return passages_.size();
}

std::uint64_t Link::held() const noexcept { return kept_.size(); }

std::map<std::string, std::uint64_t> Link::losses() {
  ring_drops_ += ring_.drops();
  const std::uint64_t veth = network_.kernel_drops();
  // A send that was refused and tried again left a drop in the interface's counter too.
  const std::uint64_t refused = std::min(veth, refused_sends_);
  return {{"ring", ring_drops_}, {"send", send_failures_}, {"veth", veth - refused}};
}

Packet Link::packet(std::size_t index) const {
  std::vector<std::byte> buffer;
  return decode(capture_.read(index, buffer));
}

std::uint64_t Link::count_matches(const Match& match, std::size_t first) const {
  std::uint64_t count = 0;
  for (std::size_t i = first; i < passages_.size(); ++i) {
    const Passage& passage = passages_[i];
    if (match.fits(packet(i), host_name(passage.from), host_name(passage.to))) ++count;
  }
  return count;
}

}  // namespace testbed
