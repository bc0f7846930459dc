#include "sock/resolve.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sock {
namespace {

TEST(IsService, TakesPortNumbersAndNames) {
  for (const char* good : {"0", "80", "65535", "http", "X11"})
    EXPECT_TRUE(is_service(good)) << good;
  for (const char* bad : {"", "70000", "65536", "-1", "+80", " 80", "80x", "80 ", "_http"}) {
    EXPECT_FALSE(is_service(bad)) << bad;
  }
}

TEST(Resolve, ServiceNamesAreLookedUp) {
  const auto endpoints = resolve("127.0.0.1", "http", AF_UNSPEC, SOCK_STREAM, AI_NUMERICHOST);
  ASSERT_TRUE(endpoints) << endpoints.error().message();
  EXPECT_EQ(endpoints->front().address.port(), 80);
}

TEST(Resolve, NumericAddressGivesOneEndpoint) {
  const auto endpoints = resolve("127.0.0.1", "7000", AF_UNSPEC, SOCK_STREAM, AI_NUMERICHOST);
  ASSERT_TRUE(endpoints) << endpoints.error().message();
  ASSERT_EQ(endpoints->size(), 1U);
  EXPECT_EQ(endpoints->front().address, SocketAddress::ipv4_loopback(7000));
  EXPECT_EQ(endpoints->front().type, SOCK_STREAM);
  EXPECT_EQ(endpoints->front().protocol, IPPROTO_TCP);
}

TEST(Resolve, LocalhostIsALoopbackAddress) {
  const auto endpoints = resolve("localhost", "80");
  ASSERT_TRUE(endpoints) << endpoints.error().message();
  for (const Endpoint& endpoint : *endpoints) {
    EXPECT_TRUE(endpoint.address == SocketAddress::ipv4_loopback(80) ||
                endpoint.address == SocketAddress::ipv6_loopback(80))
        << endpoint.address.to_string();
  }
}

TEST(Resolve, PassiveWithoutAHostIsTheAnyAddressOfEveryFamily) {
  const auto endpoints = resolve(nullptr, "0", AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  ASSERT_TRUE(endpoints) << endpoints.error().message();
  for (const SocketAddress& any : {SocketAddress::ipv4_any(0), SocketAddress::ipv6_any(0)}) {
    EXPECT_EQ(std::count_if(endpoints->begin(), endpoints->end(),
                            [&](const Endpoint& endpoint) { return endpoint.address == any; }),
              1)
        << any.to_string();
  }
}

TEST(Resolve, ErrorsAreThoseOfGetaddrinfo) {
  const Error error = resolve("not numeric", "80", AF_UNSPEC, SOCK_STREAM, AI_NUMERICHOST).error();
  EXPECT_EQ(error.domain, Error::Domain::gai);
  EXPECT_EQ(error.code, EAI_NONAME);
  EXPECT_EQ(error.message(), std::string("getaddrinfo: ") + ::gai_strerror(EAI_NONAME));
}

}  // namespace
}  // namespace sock
