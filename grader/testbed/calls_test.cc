#include "calls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include <gtest/gtest.h>

namespace testbed {
namespace {

using nlohmann::json;

template <class T>
std::uint64_t at(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

std::uint64_t raw(int value) { return static_cast<std::uint64_t>(value); }

// The values of the arguments of a call of this process.
json values(long number, const Registers& args) {
  json list = json::array();
  for (const json& arg : decode_entry(*find_call(number), args, Memory(::getpid()))) {
    list.push_back(arg["value"]);
  }
  return list;
}

TEST(Calls, AreEachThereOnce) {
  std::set<long> numbers;
  std::set<std::string_view> names;
  for (const CallSpec& call : traced_calls()) {
    EXPECT_TRUE(numbers.insert(call.number).second) << call.name;
    EXPECT_TRUE(names.insert(call.name).second) << call.name;
    EXPECT_EQ(find_call(call.number), &call);
  }
  EXPECT_EQ(find_call(SYS_getppid), nullptr);
}

TEST(Calls, ConstantsReadAsTheirNames) {
  EXPECT_EQ(values(SYS_socket, {AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0}),
            json::parse(R"(["AF_INET", "SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK", 0])"));
  EXPECT_EQ(values(SYS_socket, {99, 9, 0}), json::parse("[99, 9, 0]"));
  EXPECT_EQ(values(SYS_shutdown, {3, SHUT_WR}), json::parse(R"([3, "SHUT_WR"])"));
  EXPECT_EQ(values(SYS_kill, {7, SIGPIPE}), json::parse(R"([7, "SIGPIPE"])"));
  EXPECT_EQ(values(SYS_recvfrom, {3, 0, 10, MSG_PEEK | MSG_DONTWAIT}),
            json::parse(R"([3, {"size": 10}, 10, "MSG_PEEK|MSG_DONTWAIT", null])"));
}

TEST(Calls, FcntlHasAValueOnlyWhereTheCommandTakesOne) {
  EXPECT_EQ(values(SYS_fcntl, {3, F_SETFL, O_RDWR | O_NONBLOCK}),
            json::parse(R"([3, "F_SETFL", "O_RDWR|O_NONBLOCK"])"));
  EXPECT_EQ(values(SYS_fcntl, {3, F_SETFD, FD_CLOEXEC}),
            json::parse(R"([3, "F_SETFD", "FD_CLOEXEC"])"));
  EXPECT_EQ(values(SYS_fcntl, {3, F_DUPFD, 10}), json::parse(R"([3, "F_DUPFD", 10])"));
  EXPECT_EQ(values(SYS_fcntl, {3, F_GETFL, 0xdead}), json::parse(R"([3, "F_GETFL", null])"));
}

TEST(Calls, AnOptionsValueReadsByWhichOptionItIs) {
  const int on = 1;
  const linger hard{1, 0};
  const timeval limit{1, 500000};
  const auto option = [](int level, int name, std::uint64_t value, std::size_t size) {
    return values(SYS_setsockopt, {3, raw(level), raw(name), value, size});
  };
  EXPECT_EQ(option(SOL_SOCKET, SO_REUSEADDR, at(&on), sizeof(on)),
            json::parse(R"([3, "SOL_SOCKET", "SO_REUSEADDR", 1])"));
  EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY, at(&on), sizeof(on)),
            json::parse(R"([3, "IPPROTO_TCP", "TCP_NODELAY", 1])"));
  EXPECT_EQ(option(SOL_SOCKET, SO_LINGER, at(&hard), sizeof(hard)).back(), json::parse("[1, 0]"));
  EXPECT_EQ(option(SOL_SOCKET, SO_RCVTIMEO, at(&limit), sizeof(limit)).back(), 1'500'000'000);
  // Of the same sizes, and something else.
  EXPECT_EQ(option(IPPROTO_IP, IP_ADD_MEMBERSHIP, at(&hard), sizeof(hard)).back(),
            json::parse(R"({"size": 8})"));
  EXPECT_EQ(option(IPPROTO_TCP, TCP_CONGESTION, at(&limit), sizeof(limit)).back(),
            json::parse(R"({"size": 16})"));
}

TEST(Calls, TimeOutsAreNanosecondsOrNull) {
  const timespec time{2, 5};
  const pollfd wait{7, POLLIN | POLLRDNORM, 0};
  EXPECT_EQ(values(SYS_ppoll, {at(&wait), 1, at(&time)}),
            json::parse(R"([[{"fd": 7, "events": "POLLIN|POLLRDNORM"}], 1, 2000000005])"));
  EXPECT_EQ(values(SYS_ppoll, {at(&wait), 0, 0}), json::parse("[[], 0, null]"));
}

TEST(Calls, AddressesReadByTheirFamily) {
  sockaddr_in inet{};
  inet.sin_family = AF_INET;
  inet.sin_port = htons(7000);
  ::inet_pton(AF_INET, "192.0.2.1", &inet.sin_addr);
  EXPECT_EQ(values(SYS_bind, {3, at(&inet), sizeof(inet)}),
            json::parse(R"([3, ["192.0.2.1", 7000]])"));
  EXPECT_EQ(values(SYS_bind, {3, at(&inet), 3}), json::parse("[3, null]"));     // cut off
  EXPECT_EQ(values(SYS_bind, {3, 8, sizeof(inet)}), json::parse("[3, null]"));  // no such memory
  sockaddr_in6 inet6{};
  inet6.sin6_family = AF_INET6;
  inet6.sin6_port = htons(80);
  ::inet_pton(AF_INET6, "2001:db8::1", &inet6.sin6_addr);
  EXPECT_EQ(values(SYS_connect, {3, at(&inet6), sizeof(inet6)}),
            json::parse(R"([3, ["2001:db8::1", 80]])"));
  sockaddr_un local{};
  local.sun_family = AF_UNIX;
  std::strcpy(local.sun_path, "/tmp/s");
  EXPECT_EQ(values(SYS_bind, {3, at(&local), sizeof(local)}), json::parse(R"([3, "/tmp/s"])"));
  std::memcpy(local.sun_path, "\0name", 5);
  EXPECT_EQ(values(SYS_bind, {3, at(&local), sizeof(sa_family_t) + 5}),
            json::parse(R"([3, "@name"])"));
}

TEST(Calls, MovedBytesAreGatheredAcrossParts) {
  std::array<char, 3> first{'a', 'b', 'c'}, second{'d', 'e', 'f'};
  const std::array<iovec, 3> parts{
      {{first.data(), first.size()}, {nullptr, 0}, {second.data(), second.size()}}};
  const auto head = [](long number, const Registers& args, std::int64_t result) {
    return moved_bytes(*find_call(number), args, result, Memory(::getpid()));
  };
  const Registers args{1, at(parts.data()), parts.size()};
  EXPECT_EQ(head(SYS_writev, args, 6), json::parse(R"({"size": 6, "head": "YWJjZGVm"})"));
  EXPECT_EQ(head(SYS_writev, args, 4), json::parse(R"({"size": 4, "head": "YWJjZA=="})"));
  EXPECT_EQ(head(SYS_readv, args, 0), json::parse(R"({"size": 0, "head": ""})"));
  // recv(2) with MSG_TRUNC gives the length of the datagram, of which only so much is there.
  EXPECT_EQ(head(SYS_recvfrom, {1, at(first.data()), first.size()}, 1000),
            json::parse(R"({"size": 1000, "head": "YWJj"})"));
  EXPECT_EQ(head(SYS_close, {1}, 0), nullptr);
}

TEST(Calls, ErrorsReadAsTheirNames) {
  EXPECT_EQ(error_name(ECONNRESET), "ECONNRESET");
  EXPECT_EQ(error_name(EAGAIN), "EAGAIN");
  EXPECT_EQ(error_name(512), "ERESTARTSYS");
  EXPECT_EQ(error_name(4000), "E4000");
}

TEST(Calls, Base64IsThatOfRfc4648) {
  const auto encode = [](std::string_view text) {
    return encode_base64(std::as_bytes(std::span(text)));
  };
  EXPECT_EQ(encode(""), "");
  EXPECT_EQ(encode("f"), "Zg==");
  EXPECT_EQ(encode("fo"), "Zm8=");
  EXPECT_EQ(encode("foo"), "Zm9v");
  EXPECT_EQ(encode("foobar"), "Zm9vYmFy");
}

// In a child, where it is installed: a traced call without a tracer does not exist (seccomp(2)).
TEST(Filter, StopsTracedCallsAndNoOthers) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<sock_filter> filter = call_filter(false);
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) ::_exit(1);
    const auto exists = [](long number) {
      return ::syscall(number, -1, 0, 0, 0) >= 0 || errno != ENOSYS;
    };
    if (!exists(SYS_getppid) || !exists(SYS_lseek)) ::_exit(2);
    for (const CallSpec& call : traced_calls()) {
      if (call.number != SYS_exit_group && exists(call.number)) ::_exit(3);
    }
    if (exists(SYS_io_uring_setup)) ::_exit(4);
    ::syscall(SYS_exit, 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace testbed
