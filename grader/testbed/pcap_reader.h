// pcap_reader.h - the packets of a capture file, pcap or pcapng, one after the other.
//
// Reads pcap (micro- and nanoseconds) and pcapng (Enhanced, Simple and the old Packet Block, any
// number of interfaces, if_tsresol, if_tsoffset, several sections), each in both byte orders. The
// file is untrusted: nothing is taken from a length that was not checked, at most kMostBytes are
// held at a time. A damaged file is read as far as it is sound; problem() then says in one sentence
// where and why reading stopped. Not thread-safe.
//
// Why not libpcap: it gives a pcapng file one link type and one snapshot length, and refuses one
// whose interfaces differ in these - which is what a capture of a loopback and an Ethernet
// interface at once looks like.
//
// Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "decode.h"

namespace testbed {

// Thrown for a file that does not begin like a capture.
class NoCapture : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class PcapReader {
 public:
  static constexpr std::size_t kMostBytes = 16 << 20;  // of one block or packet
  static constexpr std::size_t kMostInterfaces = 4096;

  struct Frame {
    std::int64_t time = 0;  // nanoseconds since 1970; that of the packet before where none is given
    LinkType link = LinkType::kEthernet;
    std::span<const std::byte> bytes;  // valid until the next call
    std::size_t cut = 0;               // bytes at the end that were not captured
  };

  // Reads the beginning of `file`, which must outlive the reader and be open in binary mode.
  explicit PcapReader(std::istream& file);

  // The next packet; absent at the end, or at damage.
  std::optional<Frame> next();
  // Empty when all was sound so far.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  using Bytes = std::span<const std::byte>;
  struct Interface {
    LinkType link = LinkType::kEthernet;
    std::uint32_t snapshot = 0;   // 0: no limit
    std::uint8_t resolution = 6;  // if_tsresol
    std::int64_t offset = 0;      // if_tsoffset, seconds
  };

  std::optional<Frame> next_record();
  std::optional<Frame> next_of_blocks();
  bool read_block(std::uint32_t& type, Bytes& body);
  bool start_section();
  bool add_interface(Bytes body);
  std::optional<Frame> enhanced(std::uint32_t type, Bytes body);
  std::optional<Frame> simple(Bytes body);

  bool fill(std::size_t size);
  bool stop(const std::string& why);
  [[nodiscard]] std::uint16_t word(Bytes bytes, std::size_t at) const;
  [[nodiscard]] std::uint32_t number(Bytes bytes, std::size_t at) const;

  std::istream& file_;
  std::vector<std::byte> buffer_;
  std::uint64_t offset_ = 0;  // in the file, of what was read last
  std::uint64_t read_ = 0;    // bytes so far
  bool blocks_ = false;       // pcapng
  bool little_ = false;
  bool nanoseconds_ = false;             // of a pcap file
  LinkType link_ = LinkType::kEthernet;  // of a pcap file
  std::vector<Interface> interfaces_;
  std::int64_t time_ = 0;
  std::string problem_;
};

}  // namespace testbed
