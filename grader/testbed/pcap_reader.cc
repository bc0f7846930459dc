#include "pcap_reader.h"

#include <algorithm>
#include <limits>

#include "sock/bytes.h"

namespace testbed {
namespace {

constexpr std::uint32_t kMicroseconds = 0xa1b2c3d4, kNanoseconds = 0xa1b23c4d;
constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a, kByteOrder = 0x1a2b3c4d;
constexpr std::uint32_t kInterface = 1, kPacket = 2, kSimplePacket = 3, kEnhancedPacket = 6;
constexpr std::uint64_t kSecond = 1'000'000'000;

std::uint32_t swapped(std::uint32_t value) { return __builtin_bswap32(value); }

// `stamp` in units of an if_tsresol, as nanoseconds; absent when it is past the year 2262.
std::optional<std::uint64_t> nanoseconds_of(std::uint64_t stamp, std::uint8_t resolution) {
  unsigned digits = resolution & 0x7fU;
  std::uint64_t seconds = 0, rest = 0;
  if ((resolution & 0x80) != 0) {  // a power of two
    if (digits > 63) return 0;
    seconds = stamp >> digits;
    rest = stamp & ((std::uint64_t{1} << digits) - 1);
    if (digits > 32) {  // so that the product below fits; 2^-32 s is finer than what we tell
      rest >>= digits - 32;
      digits = 32;
    }
    rest = (rest * kSecond) >> digits;
  } else {
    if (digits > 19) return 0;
    std::uint64_t unit = 1;  // how many of them make a second
    for (unsigned i = 0; i < digits; ++i) unit *= 10;
    seconds = stamp / unit;
    rest = stamp % unit;
    rest = unit > kSecond ? rest / (unit / kSecond) : rest * (kSecond / unit);
  }
  if (seconds >= std::numeric_limits<std::int64_t>::max() / kSecond) return std::nullopt;
  return seconds * kSecond + rest;
}

}  // namespace

PcapReader::PcapReader(std::istream& file) : file_(file) {
  if (!fill(4)) throw NoCapture("too short for a capture file");
  const std::uint32_t magic = number(buffer_, 0);  // read as big-endian
  if (magic == kSectionHeader) {
    blocks_ = true;
    start_section();
  } else {
    little_ = magic == swapped(kMicroseconds) || magic == swapped(kNanoseconds);
    const std::uint32_t known = little_ ? swapped(magic) : magic;
    if (known != kMicroseconds && known != kNanoseconds) {
      throw NoCapture("neither a pcap nor a pcapng file");
    }
    nanoseconds_ = known == kNanoseconds;
    if (!fill(20)) throw NoCapture("its pcap header is cut short");
    if (word(buffer_, 0) != 2) throw NoCapture("a pcap file of an unknown version");
    // The upper bits tell of a frame check sequence, which lies behind everything we read.
    link_ = static_cast<LinkType>(number(buffer_, 16) & 0x03ffffff);
  }
  if (!problem_.empty()) throw NoCapture(problem_);
}

std::uint16_t PcapReader::word(Bytes bytes, std::size_t at) const {
  const std::uint16_t value = sock::load_be16(bytes.subspan(at, 2));
  return little_ ? static_cast<std::uint16_t>(value << 8 | value >> 8) : value;
}

std::uint32_t PcapReader::number(Bytes bytes, std::size_t at) const {
  const std::uint32_t value = sock::load_be32(bytes.subspan(at, 4));
  return little_ ? swapped(value) : value;
}

// Reads the next `size` bytes into the buffer. False when the file ends before.
bool PcapReader::fill(std::size_t size) {
  // In parts: a length that lies costs no memory.
  constexpr std::size_t kPart = 1 << 20;
  offset_ = read_;
  std::size_t got = 0;
  while (got < size) {
    const std::size_t part = std::min(kPart, size - got);
    if (buffer_.size() < got + part) buffer_.resize(got + part);
    file_.read(reinterpret_cast<char*>(buffer_.data() + got), static_cast<std::streamsize>(part));
    const auto count = static_cast<std::size_t>(file_.gcount());
    got += count;
    read_ += count;
    if (count < part) return false;
  }
  return true;
}

bool PcapReader::stop(const std::string& why) {
  problem_ = "the capture is damaged at byte " + std::to_string(offset_) + ": " + why;
  return false;
}

std::optional<PcapReader::Frame> PcapReader::next() {
  if (!problem_.empty()) return std::nullopt;
  return blocks_ ? next_of_blocks() : next_record();
}

std::optional<PcapReader::Frame> PcapReader::next_record() {
  if (!fill(16)) {
    if (read_ != offset_) stop("a packet's header is cut short");
    return std::nullopt;
  }
  const Bytes header = buffer_;
  const std::uint64_t seconds = number(header, 0);
  const std::uint64_t fraction = number(header, 4);
  const std::size_t kept = number(header, 8), size = number(header, 12);
  if (kept > kMostBytes) {
    stop("a packet of " + std::to_string(kept) + " bytes");
    return std::nullopt;
  }
  if (fraction >= (nanoseconds_ ? kSecond : kSecond / 1000)) {
    stop("a time whose fraction is more than a second");
    return std::nullopt;
  }
  if (!fill(kept)) {
    stop("a packet is cut short");
    return std::nullopt;
  }
  time_ = static_cast<std::int64_t>(seconds * kSecond + fraction * (nanoseconds_ ? 1 : 1000));
  return Frame{time_, link_, Bytes(buffer_).first(kept), size > kept ? size - kept : 0};
}

std::optional<PcapReader::Frame> PcapReader::next_of_blocks() {
  std::uint32_t type = 0;
  Bytes body;
  while (read_block(type, body)) {
    if (type == kInterface && !add_interface(body)) return std::nullopt;
    if (type == kEnhancedPacket || type == kPacket) return enhanced(type, body);
    if (type == kSimplePacket) return simple(body);
  }
  return std::nullopt;
}

// The next block; a section header is taken at once and shown as a block without a body.
bool PcapReader::read_block(std::uint32_t& type, Bytes& body) {
  body = {};
  if (!fill(4)) return read_ == offset_ ? false : stop("a block's header is cut short");
  type = number(buffer_, 0);
  if (type == kSectionHeader) return start_section();  // the same in both byte orders
  if (!fill(4)) return stop("a block's header is cut short");
  const std::size_t length = number(buffer_, 0);
  if (length < 12 || length % 4 != 0) return stop("a block's length cannot be");
  if (length > kMostBytes) return stop("a block of " + std::to_string(length) + " bytes");
  if (!fill(length - 8)) return stop("a block is cut short");
  if (number(buffer_, length - 12) != length) return stop("a block's two lengths differ");
  body = Bytes(buffer_).first(length - 12);
  return true;
}

// The rest of a Section Header Block, which sets the byte order and ends all interfaces.
bool PcapReader::start_section() {
  if (!fill(8)) return stop("a section's header is cut short");
  little_ = number(Bytes(buffer_), 4) != kByteOrder ? !little_ : little_;
  if (number(buffer_, 4) != kByteOrder) return stop("a section without a byte order");
  const std::size_t length = number(buffer_, 0);
  if (length < 28 || length % 4 != 0 || length > kMostBytes) {
    return stop("a section header's length cannot be");
  }
  if (!fill(length - 12)) return stop("a section's header is cut short");
  if (word(buffer_, 0) != 1) return stop("a pcapng section of an unknown version");
  if (number(buffer_, length - 16) != length) return stop("a block's two lengths differ");
  interfaces_.clear();
  return true;
}

bool PcapReader::add_interface(Bytes body) {
  if (body.size() < 8) return stop("an interface's block is too short");
  if (interfaces_.size() >= kMostInterfaces) {
    return stop("more than " + std::to_string(kMostInterfaces) + " interfaces");
  }
  Interface& interface = interfaces_.emplace_back();
  interface.link = LinkType{word(body, 0)};
  interface.snapshot = number(body, 4);
  for (std::size_t at = 8; at + 4 <= body.size();) {
    constexpr std::uint16_t kEnd = 0, kResolution = 9, kOffset = 14;
    const std::uint16_t code = word(body, at);
    const std::size_t size = word(body, at + 2);
    at += 4;
    if (code == kEnd) break;
    if (size > body.size() - at) return stop("an interface's option runs past its block");
    if (code == kResolution && size == 1) {
      interface.resolution = std::to_integer<std::uint8_t>(body[at]);
    }
    if (code == kOffset && size == 8) {
      const std::uint64_t first = number(body, at), second = number(body, at + 4);
      interface.offset =
          static_cast<std::int64_t>(little_ ? second << 32 | first : first << 32 | second);
    }
    at += (size + 3) & ~std::size_t{3};
  }
  return true;
}

// Enhanced Packet Block, and the Packet Block it replaced: they differ in the first field only.
std::optional<PcapReader::Frame> PcapReader::enhanced(std::uint32_t type, Bytes body) {
  if (body.size() < 20) {
    stop("a packet's block is too short");
    return std::nullopt;
  }
  const std::size_t interface = type == kPacket ? word(body, 0) : number(body, 0);
  const std::uint64_t stamp = std::uint64_t{number(body, 4)} << 32 | number(body, 8);
  const std::size_t kept = number(body, 12), size = number(body, 16);
  if (interface >= interfaces_.size()) {
    stop("a packet of interface " + std::to_string(interface) + ", which was not described");
    return std::nullopt;
  }
  if (kept > body.size() - 20) {
    stop("a packet is longer than its block");
    return std::nullopt;
  }
  const Interface& described = interfaces_[interface];
  const auto since = nanoseconds_of(stamp, described.resolution);
  constexpr std::int64_t kMostSeconds = std::numeric_limits<std::int64_t>::max() / 4 / kSecond;
  if (!since || described.offset > kMostSeconds || described.offset < -kMostSeconds ||
      *since > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / 2) {
    stop("a time that cannot be");
    return std::nullopt;
  }
  time_ = static_cast<std::int64_t>(*since) + described.offset * static_cast<std::int64_t>(kSecond);
  return Frame{time_, described.link, body.subspan(20, kept), size > kept ? size - kept : 0};
}

// Simple Packet Block: of the first interface, without a time.
std::optional<PcapReader::Frame> PcapReader::simple(Bytes body) {
  if (body.size() < 4 || interfaces_.empty()) {
    stop(interfaces_.empty() ? "a packet without an interface" : "a packet's block is too short");
    return std::nullopt;
  }
  const std::size_t size = number(body, 0);
  std::size_t kept = size;
  if (interfaces_.front().snapshot != 0) {
    kept = std::min<std::size_t>(kept, interfaces_.front().snapshot);
  }
  if (kept > body.size() - 4) {
    stop("a packet is longer than its block");
    return std::nullopt;
  }
  return Frame{time_, interfaces_.front().link, body.subspan(4, kept), size - kept};
}

}  // namespace testbed
