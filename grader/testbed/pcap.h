// pcap.h - the capture: every frame the link saw, in order, in memory.
//
// The file lies in a memfd in the pcap format with nanosecond times (magic 0xa1b23c4d, link type
// Ethernet), so it can be handed over as it is. Frames are kept whole up to a limit of bytes; past
// it only those that the owner picks are kept, in a little spare room. Not thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sock/fd.h"

namespace testbed {

// Times are nanoseconds since the testbed's time 0; `realtime` is what CLOCK_REALTIME was then.
class Capture {
 public:
  Capture(std::uint64_t limit, std::int64_t realtime);

  struct Frame {
    std::int64_t time;
    std::span<const std::byte> bytes;
  };
  // Appends the frames and returns how many of them were kept (all, or those before the limit).
  std::size_t append(std::span<const Frame> frames);
  // Appends a frame past the limit, while there is spare room. Returns whether it was kept.
  bool append_spare(const Frame& frame);

  [[nodiscard]] std::size_t count() const noexcept { return offsets_.size(); }
  [[nodiscard]] bool truncated() const noexcept { return truncated_; }
  // Reads frame `index` (from 0) back into `buffer`, which must outlive the result.
  std::span<const std::byte> read(std::size_t index, std::vector<std::byte>& buffer) const;
  // A duplicate of the memfd, its read position at 0.
  [[nodiscard]] sock::Fd file() const;

 private:
  struct Place {
    std::uint64_t offset;  // of the frame's bytes
    std::uint32_t size;
  };
  void write(std::span<const Frame> frames);
  sock::Fd file_;
  std::uint64_t limit_;
  std::int64_t realtime_;
  std::uint64_t size_ = 0;
  bool truncated_ = false;
  std::vector<Place> offsets_;
};

// A memfd that holds `bytes`, positioned at 0: how large results travel.
sock::Fd memory_file(const char* name, std::span<const std::byte> bytes);

}  // namespace testbed
