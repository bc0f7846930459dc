#include "sock/address.h"

#include <gtest/gtest.h>

namespace sock {
namespace {

TEST(ParseNumber, TakesDigitsAndNothingElse) {
  EXPECT_EQ(parse_port("0"), 0);
  EXPECT_EQ(parse_port("65535"), 65535);
  for (const char* bad :
       {"", "65536", "70000", "-1", "+80", " 80", "80 ", "80x", "0x50", "99999999999999999999"}) {
    EXPECT_FALSE(parse_port(bad)) << bad;
  }
}

TEST(SocketAddress, DefaultIsNoAddress) {
  const SocketAddress none;
  EXPECT_EQ(none.family(), AF_UNSPEC);
  EXPECT_EQ(none.size(), 0U);
  EXPECT_EQ(none.to_string(), "");
}

TEST(SocketAddress, PortIsInNetworkOrderInside) {
  const SocketAddress address = SocketAddress::ipv4_loopback(0x1234);
  EXPECT_EQ(address.port(), 0x1234);
  sockaddr_in raw{};
  std::memcpy(&raw, address.data(), address.size());
  EXPECT_EQ(raw.sin_port, htons(0x1234));
}

class RoundTrip : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTrip, ToStringIsTheInverseOfParse) {
  const auto address = SocketAddress::parse(GetParam());
  ASSERT_TRUE(address) << address.error().message();
  EXPECT_EQ(address->to_string(), GetParam());
  EXPECT_EQ(SocketAddress(address->data(), address->size()), *address);
}

INSTANTIATE_TEST_SUITE_P(Texts, RoundTrip,
                         ::testing::Values("0.0.0.0:0", "127.0.0.1:80", "192.0.2.255:65535",
                                           "[::]:0", "[::1]:80", "[2001:db8::1]:443",
                                           "[::ffff:192.0.2.1]:7", "[fe80::1%lo]:80",
                                           "[fe80::1%987654]:80", "unix:/run/a.sock",
                                           "unix:relative", "unix:@abstract", "unix:@"));

TEST(SocketAddress, ParseRefusesEverythingElse) {
  for (const char* bad : {"",
                          ":",
                          "127.0.0.1",
                          "127.0.0.1:",
                          "127.0.0.1:80x",
                          "127.0.0.1:70000",
                          "127.0.0.1:-1",
                          "127.0.0.256:1",
                          "127.1:1",
                          "127.0.0.01:1",
                          "127.0.0.1%lo:1",
                          " 127.0.0.1:1",
                          "::1:80",
                          "[::1]",
                          "[::1]80",
                          "[::1",
                          "::1]:80",
                          "[127.0.0.1]:80",
                          "[]:80",
                          "[:::]:80",
                          "[::1%nosuchif]:80",
                          "[::1%]:80",
                          "localhost:80",
                          "unix:"}) {
    EXPECT_EQ(SocketAddress::parse(bad).error(), EINVAL) << bad;
  }
}

TEST(SocketAddress, HostIsTheAddressWithoutItsPort) {
  EXPECT_EQ(SocketAddress::parse("192.0.2.1:80")->host(), "192.0.2.1");
  EXPECT_EQ(SocketAddress::parse("[2001:db8::1]:80")->host(), "2001:db8::1");
  EXPECT_EQ(SocketAddress::parse("unix:@a")->host(), "@a");
}

TEST(SocketAddress, ScopeMayBeANameOrANumber) {
  const auto by_name = SocketAddress::parse("[fe80::1%lo]:80").value();
  const auto by_number =
      SocketAddress::parse("[fe80::1%" + std::to_string(::if_nametoindex("lo")) + "]:80").value();
  EXPECT_EQ(by_name, by_number);
  EXPECT_FALSE(by_name == SocketAddress::parse("[fe80::1]:80").value());
}

TEST(SocketAddress, UnixPathHoldsAtMost107Bytes) {
  const std::string longest(107, 'p');
  ASSERT_TRUE(SocketAddress::unix_path(longest));
  EXPECT_EQ(SocketAddress::unix_path(longest)->host(), longest);
  EXPECT_EQ(SocketAddress::unix_path(longest + "p").error(), ENAMETOOLONG);
  EXPECT_EQ(SocketAddress::unix_path("").error(), EINVAL);
}

TEST(SocketAddress, UnixPathThatFillsSunPathIsReadWithoutItsNul) {
  // bind(2) accepts 108 bytes without a final NUL, and getsockname(2) then counts one more.
  sockaddr_storage storage{};
  sockaddr_un raw{};
  raw.sun_family = AF_UNIX;
  std::memset(raw.sun_path, 'p', sizeof raw.sun_path);
  std::memcpy(&storage, &raw, sizeof raw);
  const SocketAddress address(reinterpret_cast<const sockaddr*>(&storage), sizeof raw + 1);
  EXPECT_EQ(address.host(), std::string(108, 'p'));
}

TEST(SocketAddress, AbstractNameIsExactlyAsLongAsItsSize) {
  const auto address = SocketAddress::unix_path("@ab").value();
  EXPECT_EQ(address.size(), offsetof(sockaddr_un, sun_path) + 3);
  EXPECT_FALSE(address == SocketAddress::unix_path("@abc").value());
}

TEST(SocketAddress, EqualityIgnoresPaddingAndFlowInformation) {
  sockaddr_in raw{};
  raw.sin_family = AF_INET;
  raw.sin_port = htons(80);
  raw.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::memset(raw.sin_zero, 0x55, sizeof raw.sin_zero);
  const SocketAddress padded(reinterpret_cast<const sockaddr*>(&raw), sizeof raw);
  EXPECT_EQ(padded, SocketAddress::ipv4_loopback(80));
  EXPECT_FALSE(padded == SocketAddress::ipv4_loopback(81));
  EXPECT_FALSE(padded == SocketAddress::ipv4_any(80));
  EXPECT_FALSE(padded == SocketAddress::ipv6_loopback(80));
}

TEST(SocketAddress, SizePtrOffersTheWholeCapacity) {
  SocketAddress address = SocketAddress::ipv4_loopback(80);
  EXPECT_EQ(*address.size_ptr(), sizeof(sockaddr_storage));
}

}  // namespace
}  // namespace sock
