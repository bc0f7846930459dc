#include "sock/bytes.h"

#include <gtest/gtest.h>

#include <array>

namespace sock {
namespace {

TEST(Bytes, LoadsAndStoresNetworkOrder) {
  std::array<std::byte, 8> bytes{};
  store_be64(bytes, 0x0102030405060708);
  EXPECT_EQ(hex(bytes), "0102030405060708");
  EXPECT_EQ(load_be16(bytes), 0x0102);
  EXPECT_EQ(load_be32(bytes), 0x01020304U);
  EXPECT_EQ(load_be64(bytes), 0x0102030405060708U);
  store_be16(bytes, 0xfffe);
  store_be32(std::span(bytes).subspan(2), 0x80000000);
  EXPECT_EQ(hex(bytes), "fffe800000000708");
}

TEST(Bytes, LoadsFromAnyAlignment) {
  const std::array<std::byte, 5> bytes{std::byte{0xff}, std::byte{0}, std::byte{0}, std::byte{1},
                                       std::byte{2}};
  EXPECT_EQ(load_be32(std::span(bytes).subspan(1)), 258U);
}

TEST(Bytes, HexUsesTwoLowerCaseDigits) {
  EXPECT_EQ(hex({}), "");
  EXPECT_EQ(hex(as_bytes(std::string_view("\x00\x0a\x7f\x80\xff", 5))), "000a7f80ff");
}

TEST(Bytes, TextAndBytesAreTheSameMemory) {
  const std::string_view text("a\0b", 3);
  EXPECT_EQ(as_text(as_bytes(text)), text);
  EXPECT_EQ(as_text(as_bytes(text)).data(), text.data());
}

TEST(Bytes, HexdumpShowsOffsetBytesAndText) {
  EXPECT_EQ(hexdump({}), "");
  EXPECT_EQ(hexdump(as_bytes("0123456789abcdefg\n")),
            "00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n"
            "00000010  67 0a                                            g.\n");
}

}  // namespace
}  // namespace sock
