// packet_ring.h - one packet(7) socket that sees every interface of its namespace, in one order.
//
// Frames are received through a memory-mapped ring (TPACKET_V2): its size, unlike a socket
// buffer's, needs no privilege outside the user namespace. Frames the process sends itself are not
// received back. Not thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sock/fd.h"

namespace testbed {

class PacketRing {
 public:
  struct Frame {
    std::span<const std::byte> bytes;  // valid until release()
    int interface = 0;
    std::int64_t realtime = 0;  // when the kernel took it, CLOCK_REALTIME in nanoseconds
  };

  PacketRing();
  ~PacketRing();
  PacketRing(const PacketRing&) = delete;
  PacketRing& operator=(const PacketRing&) = delete;

  [[nodiscard]] int descriptor() const noexcept { return socket_.get(); }
  // The frames that wait, oldest first, at most frames.size(). They stay until release().
  std::size_t peek(std::span<Frame> frames);
  // Gives the oldest `count` frames' places back to the kernel.
  void release(std::size_t count);
  // Frames the kernel dropped because the ring was full, since the last call.
  std::uint64_t drops();

 private:
  [[nodiscard]] std::byte* slot(std::size_t number) const;

  sock::Fd socket_;
  std::byte* memory_ = nullptr;
  std::size_t next_ = 0;
};

}  // namespace testbed
