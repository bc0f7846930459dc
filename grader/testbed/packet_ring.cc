#include "packet_ring.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <system_error>

#include "sock/error.h"

namespace testbed {
namespace {

// A slot holds the kernel's header (82 bytes at most) and a frame of MTU 1500 with a VLAN tag.
constexpr std::size_t kSlot = 2048;
// The address follows the header, aligned to TPACKET_ALIGNMENT.
constexpr std::size_t kAddressOffset = (sizeof(tpacket2_hdr) + 15) / 16 * 16;
constexpr std::size_t kBlock = 256 << 10;
constexpr std::size_t kBlocks = 32;  // 4096 frames: six full windows of 1 MiB at once
constexpr std::size_t kSlots = kBlocks * kBlock / kSlot;

template <class T>
void set_option(const sock::Fd& socket, int name, const T& value, const char* what) {
  (void)sock::check(::setsockopt(socket.get(), SOL_PACKET, name, &value, sizeof(value)), what)
      .value();
}

std::atomic_ref<std::uint32_t> status_of(std::byte* slot) {
  return std::atomic_ref(reinterpret_cast<tpacket2_hdr*>(slot)->tp_status);
}

}  // namespace

// The socket takes frames only once it is bound to a protocol, and that is done last: none may
// arrive before the ring is there.
PacketRing::PacketRing()
    : socket_(sock::check(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                          "socket(AF_PACKET)")
                  .value()) {
  set_option(socket_, PACKET_IGNORE_OUTGOING, 1, "setsockopt(PACKET_IGNORE_OUTGOING)");
  set_option(socket_, PACKET_QDISC_BYPASS, 1, "setsockopt(PACKET_QDISC_BYPASS)");
  set_option(socket_, PACKET_VERSION, int{TPACKET_V2}, "setsockopt(PACKET_VERSION)");
  set_option(socket_, PACKET_RX_RING, tpacket_req{kBlock, kBlocks, kSlot, kSlots},
             "setsockopt(PACKET_RX_RING)");
  void* memory =
      ::mmap(nullptr, kBlocks * kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, socket_.get(), 0);
  if (memory == MAP_FAILED)
    throw std::system_error(errno, std::system_category(), "mmap(packet ring)");
  memory_ = static_cast<std::byte*>(memory);
  sockaddr_ll every{};
  every.sll_family = AF_PACKET;
  every.sll_protocol = htons(ETH_P_ALL);
  (void)sock::check(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&every), sizeof(every)),
                    "bind(AF_PACKET)")
      .value();
}

PacketRing::~PacketRing() {
  if (memory_ != nullptr) ::munmap(memory_, kBlocks * kBlock);
}

std::byte* PacketRing::slot(std::size_t number) const { return memory_ + number % kSlots * kSlot; }

std::size_t PacketRing::peek(std::span<Frame> frames) {
  std::size_t count = 0;
  for (; count < frames.size() && count < kSlots; ++count) {
    std::byte* place = slot(next_ + count);
    if ((status_of(place).load(std::memory_order_acquire) & TP_STATUS_USER) == 0) break;
    const auto* header = reinterpret_cast<const tpacket2_hdr*>(place);
    const auto* address = reinterpret_cast<const sockaddr_ll*>(place + kAddressOffset);
    Frame& frame = frames[count];
    frame.bytes = {place + header->tp_mac, header->tp_snaplen};
    frame.interface = address->sll_ifindex;
    frame.realtime = std::int64_t{header->tp_sec} * 1'000'000'000 + header->tp_nsec;
  }
  return count;
}

void PacketRing::release(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    status_of(slot(next_ + i)).store(TP_STATUS_KERNEL, std::memory_order_release);
  }
  next_ = (next_ + count) % kSlots;
}

std::uint64_t PacketRing::drops() {
  tpacket_stats statistics{};
  socklen_t size = sizeof(statistics);
  (void)sock::check(::getsockopt(socket_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size),
                    "getsockopt(PACKET_STATISTICS)")
      .value();
  return statistics.tp_drops;
}

}  // namespace testbed
