// Files written down byte by byte from the two drafts, in both byte orders, and damaged ones. Files
// of other programs are read in grader/tests/test_read.py.

#include "pcap_reader.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

namespace testbed {
namespace {

class Bytes {
 public:
  explicit Bytes(bool little) : little_(little) {}
  Bytes& word(unsigned value) { return put(value, 2); }
  Bytes& number(std::uint64_t value) { return put(value, 4); }
  Bytes& text(const std::string& more) {
    text_ += more;
    return *this;
  }
  // A pcapng block with its two lengths.
  Bytes& block(std::uint32_t type, const std::string& body) {
    const std::string padded = body + std::string((4 - body.size() % 4) % 4, '\0');
    return number(type).number(padded.size() + 12).text(padded).number(padded.size() + 12);
  }
  [[nodiscard]] const std::string& str() const { return text_; }

 private:
  Bytes& put(std::uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) {
      const unsigned shift = 8 * (little_ ? i : size - 1 - i);
      text_ += static_cast<char>(value >> shift & 0xff);
    }
    return *this;
  }
  bool little_;
  std::string text_;
};

struct Got {
  std::vector<std::string> packets;
  std::vector<std::int64_t> times;
  std::vector<LinkType> links;
  std::vector<std::size_t> cuts;
  std::string problem;
};

Got read_all(const std::string& file) {
  std::istringstream stream(file);
  PcapReader reader(stream);
  Got got;
  while (const auto frame = reader.next()) {
    got.packets.emplace_back(reinterpret_cast<const char*>(frame->bytes.data()),
                             frame->bytes.size());
    got.times.push_back(frame->time);
    got.links.push_back(frame->link);
    got.cuts.push_back(frame->cut);
  }
  got.problem = reader.problem();
  return got;
}

std::string pcap(bool little, std::uint32_t magic) {
  Bytes file(little);
  file.number(magic).word(2).word(4).number(0).number(0).number(65535).number(101);
  file.number(1000).number(7).number(3).number(3).text("abc");
  file.number(1001).number(9).number(2).number(10).text("de");
  return file.str();
}

std::string interface(bool little, unsigned link, const std::string& options = "") {
  return Bytes(little).word(link).word(0).number(0).text(options).str();
}

std::string section(bool little) {
  return Bytes(little).number(0x1a2b3c4d).word(1).word(0).number(~0U).number(~0U).str();
}

std::string packet(bool little, unsigned number, std::uint64_t stamp, const std::string& data) {
  return Bytes(little)
      .number(number)
      .number(stamp >> 32)
      .number(stamp & 0xffffffff)
      .number(data.size())
      .number(data.size())
      .text(data)
      .str();
}

std::string option(bool little, unsigned code, const std::string& value) {
  return Bytes(little)
      .word(code)
      .word(static_cast<unsigned>(value.size()))
      .text(value + std::string((4 - value.size() % 4) % 4, '\0'))
      .str();
}

TEST(PcapReader, ReadsPcapInBothByteOrdersAndUnits) {
  for (const bool little : {false, true}) {
    for (const std::uint32_t magic : {0xa1b2c3d4U, 0xa1b23c4dU}) {
      const Got got = read_all(pcap(little, magic));
      EXPECT_EQ(got.packets, (std::vector<std::string>{"abc", "de"}));
      const std::int64_t unit = magic == 0xa1b2c3d4U ? 1000 : 1;
      EXPECT_EQ(got.times, (std::vector<std::int64_t>{1'000'000'000'000 + 7 * unit,
                                                      1'001'000'000'000 + 9 * unit}));
      EXPECT_EQ(got.links.front(), LinkType::kRaw);
      EXPECT_EQ(got.cuts, (std::vector<std::size_t>{0, 8}));
      EXPECT_EQ(got.problem, "");
    }
  }
}

TEST(PcapReader, ReadsAllKindsOfBlocksInBothByteOrders) {
  for (const bool little : {false, true}) {
    Bytes file(little);
    file.block(0x0a0d0d0a, section(little));
    file.block(1, interface(little, 1));
    file.block(1, interface(little, 276, option(little, 9, "\x09")));
    file.block(4, "names, skipped");
    file.block(6, packet(little, 1, 5'000'000'001, "enhanced"));
    file.block(3, Bytes(little).number(6).text("simple").str());
    // The old block: the interface in two bytes, then a count of drops.
    file.block(2, Bytes(little).word(0).word(3).str() + packet(little, 0, 42, "old").substr(4));
    file.block(5, "statistics, skipped.");
    const Got got = read_all(file.str());
    EXPECT_EQ(got.problem, "");
    EXPECT_EQ(got.packets, (std::vector<std::string>{"enhanced", "simple", "old"}));
    EXPECT_EQ(got.times, (std::vector<std::int64_t>{5'000'000'001, 5'000'000'001, 42'000}));
    EXPECT_EQ(got.links, (std::vector<LinkType>{LinkType::kLinuxCooked2, LinkType::kEthernet,
                                                LinkType::kEthernet}));
  }
}

TEST(PcapReader, ASectionHasItsOwnByteOrderAndInterfaces) {
  std::string file;
  for (const bool little : {true, false}) {
    Bytes part(little);
    part.block(0x0a0d0d0a, section(little)).block(1, interface(little, little ? 1 : 101));
    file += part.block(6, packet(little, 0, 1, little ? "first" : "second")).str();
  }
  Bytes third(true);
  file += third.block(0x0a0d0d0a, section(true)).block(6, packet(true, 0, 1, "third")).str();
  const Got got = read_all(file);
  EXPECT_EQ(got.packets, (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ(got.links, (std::vector<LinkType>{LinkType::kEthernet, LinkType::kRaw}));
  EXPECT_NE(got.problem.find("interface 0, which was not described"), std::string::npos);
}

TEST(PcapReader, UnitsAndOffsetsOfTime) {
  struct Case {
    const char* resolution;
    std::uint64_t stamp;
    std::int64_t nanoseconds;
  };
  const Case cases[] = {{"\x00", 3, 3'000'000'000},
                        {"\x03", 1'500, 1'500'000'000},
                        {"\x0c", 1'500'000'000'999, 1'500'000'000},
                        {"\x80", 2, 2'000'000'000},
                        {"\x8a", 1024 + 512, 1'500'000'000},
                        {"\xbe", std::uint64_t{3} << 61, 1'500'000'000},
                        {"\xff", ~std::uint64_t{0}, 0}};
  for (const auto& [resolution, stamp, nanoseconds] : cases) {
    Bytes file(true);
    const std::string ten = Bytes(true).number(10).number(0).str();
    file.block(0x0a0d0d0a, section(true));
    file.block(1, interface(true, 1,
                            option(true, 9, std::string(resolution, 1)) + option(true, 14, ten) +
                                option(true, 0, "")));
    file.block(6, packet(true, 0, stamp, "x"));
    const Got got = read_all(file.str());
    EXPECT_EQ(got.problem, "");
    ASSERT_EQ(got.times.size(), 1U);
    EXPECT_EQ(got.times[0], nanoseconds + 10'000'000'000);
  }
}

TEST(PcapReader, EveryCutIsReadAsFarAsItIsSoundAndNamed) {
  Bytes blocks(true);
  blocks.block(0x0a0d0d0a, section(true)).block(1, interface(true, 1));
  const std::size_t begin = blocks.str().size();
  blocks.block(6, packet(true, 0, 1, "abcd")).block(6, packet(true, 0, 2, "efgh"));
  for (const std::string& whole : {blocks.str(), pcap(true, 0xa1b2c3d4)}) {
    const std::size_t header = whole == blocks.str() ? begin : 24;
    for (std::size_t size = header; size < whole.size(); ++size) {
      const Got got = read_all(whole.substr(0, size));
      EXPECT_LE(got.packets.size(), 1U);
      const bool between = size == header || (whole == blocks.str() && size == begin + 36) ||
                           (whole != blocks.str() && size == header + 19);
      EXPECT_EQ(got.problem.empty(), between) << size << ": " << got.problem;
    }
  }
}

TEST(PcapReader, LengthsThatLieStopIt) {
  Bytes record(true);
  record.text(pcap(true, 0xa1b2c3d4)).number(1).number(2).number(0x7fffffff).number(5);
  const Got got = read_all(record.str());
  EXPECT_EQ(got.packets.size(), 2U);
  EXPECT_EQ(got.problem, "the capture is damaged at byte 61: a packet of 2147483647 bytes");
  for (const std::uint32_t length : {0U, 8U, 13U, 0xfffffffcU}) {
    Bytes file(true);
    file.block(0x0a0d0d0a, section(true)).number(6).number(length).text(std::string(64, 'x'));
    EXPECT_NE(read_all(file.str()).problem, "") << length;
  }
}

TEST(PcapReader, WhatIsNoCaptureIsRefused) {
  for (const std::string& file : {std::string(), std::string("abc"), std::string("#!/bin/sh\n"),
                                  pcap(true, 0xa1b2c3d4).substr(0, 20),
                                  Bytes(true).block(0x0a0d0d0a, "not a section").str()}) {
    EXPECT_THROW((void)read_all(file), NoCapture) << file;
  }
}

TEST(PcapReader, LinkTypesLeadToTheSamePacket) {
  // An IPv4 UDP datagram without a checksum, 192.0.2.1:1 > 192.0.2.2:2, of 2 bytes.
  const std::string ip("\x45\0\0\x1e\0\0\0\0\x40\x11\0\0\xc0\0\2\1\xc0\0\2\2\0\1\0\2\0\x0a\0\0hi",
                       30);
  const std::string type("\x08\0", 2), zero(16, '\0');
  const std::string vlan("\x88\xa8\0\1\x81\0\0\2", 8);
  const std::pair<LinkType, std::string> cases[] = {
      {LinkType::kEthernet, zero.substr(0, 12) + type},
      {LinkType::kEthernet, zero.substr(0, 12) + vlan + type},
      {LinkType::kLinuxCooked, zero.substr(0, 14) + type},
      {LinkType::kLinuxCooked2, type + zero + zero.substr(0, 2)},
      {LinkType::kNull, std::string("\2\0\0\0", 4)},
      {LinkType::kNull, std::string("\0\0\0\2", 4)},
      {LinkType::kLoop, std::string("\0\0\0\2", 4)},
      {LinkType::kRaw, ""},
      {LinkType::kRawIpv4, ""}};
  for (const auto& [link, header] : cases) {
    const std::string frame = header + ip;
    for (std::size_t cut = 0; cut <= frame.size(); ++cut) {
      const auto bytes = std::as_bytes(std::span(frame)).first(frame.size() - cut);
      const Packet got = decode(bytes, link, cut);
      if (cut > 2) continue;  // the headers are whole until then
      EXPECT_EQ(got.problem, "");
      EXPECT_EQ(got.source, "192.0.2.1");
      EXPECT_EQ(got.destination_port, 2);
      EXPECT_EQ(got.length, 2U);
      EXPECT_EQ(got.payload_offset, header.size() + 28);
    }
  }
  EXPECT_EQ(decode(std::as_bytes(std::span(ip)), static_cast<LinkType>(9999)).problem,
            "link type is not known");
}

}  // namespace
}  // namespace testbed
