// What decode() reads, held against frames written down byte by byte from the RFCs' layouts, and
// against frames damaged at every place.

#include "decode.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <initializer_list>

#include "forge.h"

namespace testbed {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// SYN of 192.0.2.2:40000 to 192.0.2.1:7000 with MSS 1460, captured by tcpdump between two hosts.
std::vector<std::byte> syn_frame() {
  return bytes_of({0x02, 0,    0,    0,    0,    0x01, 0x02, 0,    0,    0,    0,    0x02,
                   0x08, 0x00, 0x45, 0x00, 0x00, 0x2c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06,
                   0xb6, 0xcb, 192,  0,    2,    2,    192,  0,    2,    1,    0x9c, 0x40,
                   0x1b, 0x58, 0x11, 0x22, 0x33, 0x44, 0,    0,    0,    0,    0x60, 0x02,
                   0xfa, 0xf0, 0,    0,    0,    0,    0x02, 0x04, 0x05, 0xb4});
}

TEST(Decode, ReadsTheFieldsOfASyn) {
  const Packet packet = decode(syn_frame());
  EXPECT_EQ(packet.transport, Transport::kTcp);
  EXPECT_EQ(packet.family, AF_INET);
  EXPECT_EQ(packet.source, "192.0.2.2");
  EXPECT_EQ(packet.source_port, 40000);
  EXPECT_EQ(packet.destination, "192.0.2.1");
  EXPECT_EQ(packet.destination_port, 7000);
  EXPECT_EQ(packet.flags, flag::kSyn);
  EXPECT_EQ(packet.seq, 0x11223344U);
  EXPECT_EQ(packet.window, 0xfaf0);
  EXPECT_EQ(packet.options.mss, 1460);
  EXPECT_EQ(packet.length, 0U);
  EXPECT_EQ(packet.problem, "");
  EXPECT_EQ(packet.source_mac, "02:00:00:00:00:02");
}

TEST(Decode, NamesAWrongChecksum) {
  EXPECT_EQ(decode(syn_frame()).checksum, Checksum::kBad);  // its checksum field is zero
}

TEST(Decode, ForgedFramesAreWhole) {
  for (const auto& [source, destination] :
       {std::pair{"192.0.2.1", "192.0.2.2"}, std::pair{"2001:db8::1", "2001:db8::2"}}) {
    const std::vector<std::byte> reset =
        forge_reset({1, 2}, {source, 7000}, {destination, 40000}, 0x01020304);
    const Packet packet = decode(reset);
    EXPECT_EQ(packet.problem, "");
    EXPECT_EQ(packet.checksum, Checksum::kOk);
    EXPECT_EQ(packet.flags, flag::kRst);
    EXPECT_EQ(packet.seq, 0x01020304U);
    EXPECT_EQ(packet.destination_mac, "02:00:00:00:00:02");
    const Packet error = decode(forge_unreachable({2, 1}, destination, 3, reset));
    EXPECT_EQ(error.problem, "");
    EXPECT_EQ(error.checksum, Checksum::kOk);
    EXPECT_EQ(error.icmp_code, 3);
    EXPECT_EQ(error.destination, source);
  }
}

TEST(Decode, EveryCutIsSurvivedAndNamed) {
  const std::vector<std::byte> frame = syn_frame();
  for (std::size_t size = 0; size < frame.size(); ++size) {
    const Packet packet = decode(std::span(frame).first(size));
    EXPECT_NE(packet.problem, "") << "cut to " << size << " bytes";
  }
}

TEST(Decode, EveryChangedByteIsSurvived) {
  for (std::size_t at = 0; at < syn_frame().size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::vector<std::byte> frame = syn_frame();
      frame[at] = static_cast<std::byte>(value);
      const Packet packet = decode(frame);
      EXPECT_LE(packet.payload_offset + packet.length, frame.size());
    }
  }
}

TEST(Decode, AnOptionThatRunsPastTheHeaderIsNamed) {
  std::vector<std::byte> frame = syn_frame();
  frame[frame.size() - 3] = std::byte{9};
  EXPECT_EQ(decode(frame).problem, "TCP option runs past the header");
}

TEST(Checksum, IsTheOneOfRfc1071) {
  // The example of RFC 1071 section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
  const auto example = bytes_of({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7});
  EXPECT_EQ(checksum_finish(checksum_add(example, 0)), static_cast<std::uint16_t>(~0xddf2));
}

TEST(Conversations, CountsFromTheInitialNumbersAcrossTheWrap) {
  Conversations conversations;
  Packet syn = decode(syn_frame());
  syn.seq = 0xffffffff;
  EXPECT_EQ(conversations.feed(syn).seq, 0U);
  Packet data = syn;
  data.flags = flag::kAck;
  data.seq = 0;  // one past the SYN
  data.ack = 500;
  EXPECT_EQ(conversations.feed(data).seq, 1U);
  Packet answer = data;
  std::swap(answer.source, answer.destination);
  std::swap(answer.source_port, answer.destination_port);
  answer.seq = 500;
  answer.ack = 9;
  EXPECT_EQ(conversations.feed(answer).seq, 0U);
  EXPECT_EQ(conversations.feed(answer).ack, 10U);
}

}  // namespace
}  // namespace testbed
