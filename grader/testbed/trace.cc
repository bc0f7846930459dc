#include "trace.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>

namespace testbed {

using nlohmann::json;

namespace {

// What a program that moves much data does over and over. The end of the data and errors count.
bool is_bulk(const std::string& kind, const json& facts) {
  constexpr std::array<std::string_view, 19> kRepeated = {
      "epoll_pwait", "epoll_wait", "poll",    "ppoll",  "pselect6",       "read",     "readv",
      "recvfrom",    "recvmmsg",   "recvmsg", "select", "sendfile",       "sendmmsg", "sendmsg",
      "sendto",      "splice",     "write",   "writev", "restart_syscall"};
  if (kind != "call") return false;
  const auto& name = facts.at("name").get_ref<const std::string&>();
  if (std::find(kRepeated.begin(), kRepeated.end(), name) == kRepeated.end()) return false;
  const json& error = facts.at("error");
  if (error.is_string()) return error == "EAGAIN" || error == "EINTR";
  return facts.at("result") != 0;
}

std::string line_of(std::size_t number, const Trace::Record& record,
                    const Trace::PacketFacts& packet_facts) {
  const bool observed = record.source == Trace::Source::kObserved;
  // The facts are JSON text already.
  std::string line = R"({"n":)" + std::to_string(number) + R"(,"time":)" +
                     std::to_string(record.time) + R"(,"kind":")" + record.kind +
                     R"(","source":")" + (observed ? "observed" : "inferred") + R"(",")" +
                     record.kind + R"(":)";
  line += record.packet ? packet_facts(*record.packet).dump() : record.facts;
  line += "}\n";
  return line;
}

}  // namespace

bool Trace::room(std::int64_t time, bool bulk) {
  const std::size_t most = bulk ? limit_ - limit_ / 3 : limit_;
  if (records_.size() < most) return true;
  if (left_out_++ == 0) {
    const json note = {
        {"text", "the trace is full: from here on some of it is left out, data and waiting first"}};
    records_.push_back({time, "note", note.dump(), {}, Source::kObserved});
  }
  return false;
}

void Trace::add(std::int64_t time, const std::string& kind, const json& facts, Source source) {
  if (!room(time, is_bulk(kind, facts))) return;
  // What a program wrote may not be UTF-8: such bytes are replaced, never refused.
  records_.push_back(
      {time, kind, facts.dump(-1, ' ', false, json::error_handler_t::replace), {}, source});
}

void Trace::packet(std::int64_t time, std::size_t index, bool bulk) {
  if (room(time, bulk)) records_.push_back({time, "packet", {}, index, Source::kObserved});
}

Trace Trace::unlimited() const {
  Trace copy = *this;
  copy.limit_ = std::numeric_limits<std::size_t>::max() / 2;
  return copy;
}

std::string Trace::lines(const PacketFacts& packet_facts) const {
  // Facts become known in another order than that in which they happened.
  std::vector<std::size_t> order(records_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto place = [&](std::size_t i) {
    const std::string& kind = records_[i].kind;
    const int rank = kind == "call" ? 0 : kind == "packet" ? 1 : kind == "state" ? 2 : 3;
    return std::pair(records_[i].time, rank);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return place(a) < place(b); });
  std::string text;
  for (std::size_t i = 0; i < records_.size(); ++i) {
    text += line_of(i + 1, records_[order[i]], packet_facts);
  }
  return text;
}

std::string Trace::lines(std::size_t first, std::size_t last,
                         const PacketFacts& packet_facts) const {
  std::string text;
  for (std::size_t i = first; i < last; ++i) text += line_of(i + 1, records_[i], packet_facts);
  return text;
}

}  // namespace testbed
