#include "calls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>

namespace testbed {
namespace {

using nlohmann::json;

constexpr std::size_t kMostEntries = 32;  // of a poll list, an fd_set, an array of events
constexpr std::size_t kHead = 48;         // bytes of data that are kept

constexpr ArgSpec kFd = {"fd", Arg::kFd};
constexpr ArgSpec kFlags = {"flags", Arg::kMessageFlags};
constexpr ArgSpec kAddressIn = {"addr", Arg::kAddressIn}, kAddressOut = {"addr", Arg::kAddressOut};
constexpr ArgSpec kLength = {"addrlen", Arg::kPointer};
constexpr ArgSpec kIn = {"buf", Arg::kBufferIn}, kOut = {"buf", Arg::kBufferOut};
constexpr ArgSpec kSize = {"size", Arg::kSize};
constexpr ArgSpec kVectorIn = {"iov", Arg::kVectorIn}, kVectorOut = {"iov", Arg::kVectorOut};
constexpr ArgSpec kCount = {"count", Arg::kInt};
constexpr ArgSpec kReadSet = {"readfds", Arg::kFdSet}, kWriteSet = {"writefds", Arg::kFdSet},
                  kExceptSet = {"exceptfds", Arg::kFdSet};
constexpr ArgSpec kTimespec = {"timeout", Arg::kTimespec}, kTimeval = {"timeout", Arg::kTimeval},
                  kMilliseconds = {"timeout", Arg::kMilliseconds};

// Architectures differ in which calls they have.
constexpr CallSpec kCalls[] = {
    {SYS_socket,
     "socket",
     {{{"domain", Arg::kDomain}, {"type", Arg::kSocketType}, {"protocol", Arg::kInt}}}},
    {SYS_socketpair,
     "socketpair",
     {{{"domain", Arg::kDomain},
       {"type", Arg::kSocketType},
       {"protocol", Arg::kInt},
       {"fds", Arg::kFdPairOut}}}},
    {SYS_bind, "bind", {{kFd, kAddressIn, kLength}}},
    {SYS_listen, "listen", {{kFd, {"backlog", Arg::kInt}}}},
    {SYS_accept, "accept", {{kFd, kAddressOut, kLength}}},
    {SYS_accept4, "accept4", {{kFd, kAddressOut, kLength, {"flags", Arg::kSocketType}}}},
    {SYS_connect, "connect", {{kFd, kAddressIn, kLength}}},
    {SYS_getsockname, "getsockname", {{kFd, kAddressOut, kLength}}},
    {SYS_getpeername, "getpeername", {{kFd, kAddressOut, kLength}}},
    {SYS_setsockopt,
     "setsockopt",
     {{kFd,
       {"level", Arg::kLevel},
       {"option", Arg::kOption},
       {"value", Arg::kOptionValueIn},
       kLength}}},
    {SYS_getsockopt,
     "getsockopt",
     {{kFd,
       {"level", Arg::kLevel},
       {"option", Arg::kOption},
       {"value", Arg::kOptionValueOut},
       kLength}}},
    {SYS_shutdown, "shutdown", {{kFd, {"how", Arg::kHow}}}},
    {SYS_close, "close", {{kFd}}},
    {SYS_close_range, "close_range", {{{"first", Arg::kInt}, {"last", Arg::kInt}, kCount}}},
    {SYS_dup, "dup", {{kFd}}},
    {SYS_dup3, "dup3", {{kFd, {"newfd", Arg::kInt}, {"flags", Arg::kOpenFlags}}}},
    {SYS_fcntl, "fcntl", {{kFd, {"command", Arg::kFcntlCommand}, {"value", Arg::kFcntlValue}}}},
    {SYS_ioctl, "ioctl", {{kFd, {"request", Arg::kInt}, {"value", Arg::kPointer}}}},
    {SYS_read, "read", {{kFd, kOut, kSize}}},
    {SYS_write, "write", {{kFd, kIn, kSize}}},
    {SYS_readv, "readv", {{kFd, kVectorOut, kCount}}},
    {SYS_writev, "writev", {{kFd, kVectorIn, kCount}}},
    {SYS_pread64, "pread64", {{kFd, kOut, kSize, {"offset", Arg::kSize}}}},
    {SYS_pwrite64, "pwrite64", {{kFd, kIn, kSize, {"offset", Arg::kSize}}}},
    {SYS_recvfrom, "recvfrom", {{kFd, kOut, kSize, kFlags, kAddressOut, kLength}}},
    {SYS_sendto, "sendto", {{kFd, kIn, kSize, kFlags, kAddressIn, kLength}}},
    {SYS_recvmsg, "recvmsg", {{kFd, {"msg", Arg::kMessageOut}, kFlags}}},
    {SYS_sendmsg, "sendmsg", {{kFd, {"msg", Arg::kMessageIn}, kFlags}}},
    {SYS_recvmmsg, "recvmmsg", {{kFd, {"msgs", Arg::kPointer}, kCount, kFlags, kTimespec}}},
    {SYS_sendmmsg, "sendmmsg", {{kFd, {"msgs", Arg::kPointer}, kCount, kFlags}}},
    {SYS_sendfile,
     "sendfile",
     {{kFd, {"from", Arg::kInt}, {"offset", Arg::kPointer}, {"count", Arg::kSize}}}},
    {SYS_splice,
     "splice",
     {{{"from", Arg::kInt},
       {"from_offset", Arg::kPointer},
       {"to", Arg::kInt},
       {"to_offset", Arg::kPointer},
       {"size", Arg::kSize},
       {"flags", Arg::kInt}}}},
    {SYS_ppoll, "ppoll", {{{"fds", Arg::kPollList}, kCount, kTimespec}}},
    {SYS_pselect6, "pselect6", {{kCount, kReadSet, kWriteSet, kExceptSet, kTimespec}}},
    {SYS_epoll_create1, "epoll_create1", {{{"flags", Arg::kOpenFlags}}}},
    {SYS_epoll_ctl,
     "epoll_ctl",
     {{{"epfd", Arg::kInt},
       {"op", Arg::kEpollOperation},
       {"fd", Arg::kFd},
       {"event", Arg::kEpollEvent}}}},
    {SYS_epoll_pwait,
     "epoll_pwait",
     {{{"epfd", Arg::kInt}, {"events", Arg::kEpollEventsOut}, kCount, kMilliseconds}}},
    {SYS_pipe2, "pipe2", {{{"fds", Arg::kFdPairOut}, {"flags", Arg::kOpenFlags}}}},
    {SYS_eventfd2, "eventfd2", {{{"value", Arg::kInt}, {"flags", Arg::kOpenFlags}}}},
    {SYS_signalfd4, "signalfd4", {{{"fd", Arg::kInt}, {"mask", Arg::kPointer}}}},
    {SYS_timerfd_create, "timerfd_create", {{{"clock", Arg::kInt}, {"flags", Arg::kOpenFlags}}}},
    {SYS_timerfd_settime, "timerfd_settime", {{{"fd", Arg::kInt}, {"flags", Arg::kInt}}}},
    {SYS_rt_sigaction, "rt_sigaction", {{{"signal", Arg::kSignal}, {"action", Arg::kPointer}}}},
    {SYS_rt_sigprocmask, "rt_sigprocmask", {{{"how", Arg::kInt}, {"set", Arg::kPointer}}}},
    {SYS_kill, "kill", {{{"pid", Arg::kInt}, {"signal", Arg::kSignal}}}},
    {SYS_tgkill, "tgkill", {{{"pid", Arg::kInt}, {"tid", Arg::kInt}, {"signal", Arg::kSignal}}}},
    {SYS_clone, "clone", {{{"flags", Arg::kPointer}}}},
    {SYS_clone3, "clone3", {{{"arguments", Arg::kPointer}, kSize}}},
    {SYS_execve, "execve", {{{"path", Arg::kPath}}}},
    {SYS_wait4, "wait4", {{{"pid", Arg::kInt}, {"status", Arg::kPointer}, {"options", Arg::kInt}}}},
    {SYS_waitid, "waitid", {{{"which", Arg::kInt}, {"id", Arg::kInt}}}},
    {SYS_exit_group, "exit_group", {{{"status", Arg::kInt}}}},
    {SYS_nanosleep, "nanosleep", {{kTimespec}}},
    {SYS_clock_nanosleep,
     "clock_nanosleep",
     {{{"clock", Arg::kInt}, {"flags", Arg::kInt}, kTimespec}}},
    {SYS_setitimer, "setitimer", {{{"which", Arg::kInt}, {"value", Arg::kPointer}}}},
    {SYS_restart_syscall, "restart_syscall", {}},
#ifdef SYS_poll
    {SYS_poll, "poll", {{{"fds", Arg::kPollList}, kCount, kMilliseconds}}},
    {SYS_select, "select", {{kCount, kReadSet, kWriteSet, kExceptSet, kTimeval}}},
    {SYS_epoll_wait,
     "epoll_wait",
     {{{"epfd", Arg::kInt}, {"events", Arg::kEpollEventsOut}, kCount, kMilliseconds}}},
    {SYS_dup2, "dup2", {{kFd, {"newfd", Arg::kInt}}}},
    {SYS_pipe, "pipe", {{{"fds", Arg::kFdPairOut}}}},
    {SYS_fork, "fork", {}},
    {SYS_vfork, "vfork", {}},
    {SYS_alarm, "alarm", {{{"seconds", Arg::kInt}}}},
#endif
};

struct Word {
  std::int64_t value;
  const char* name;
};
#define WORD(name) \
  { static_cast<std::int64_t>(name), #name }  // the constant's own name as text
constexpr Word kDomains[] = {WORD(AF_UNSPEC), WORD(AF_UNIX),    WORD(AF_INET),
                             WORD(AF_INET6),  WORD(AF_NETLINK), WORD(AF_PACKET)};
constexpr Word kSocketTypes[] = {WORD(SOCK_STREAM), WORD(SOCK_DGRAM), WORD(SOCK_RAW),
                                 WORD(SOCK_SEQPACKET)};
constexpr Word kSocketFlags[] = {WORD(SOCK_CLOEXEC), WORD(SOCK_NONBLOCK)};
constexpr Word kMessageFlags[] = {
    WORD(MSG_OOB),        WORD(MSG_PEEK),     WORD(MSG_DONTROUTE), WORD(MSG_CTRUNC),
    WORD(MSG_TRUNC),      WORD(MSG_DONTWAIT), WORD(MSG_EOR),       WORD(MSG_WAITALL),
    WORD(MSG_CONFIRM),    WORD(MSG_ERRQUEUE), WORD(MSG_NOSIGNAL),  WORD(MSG_MORE),
    WORD(MSG_WAITFORONE), WORD(MSG_FASTOPEN), WORD(MSG_ZEROCOPY),  WORD(MSG_CMSG_CLOEXEC)};
constexpr Word kLevels[] = {WORD(SOL_SOCKET), WORD(IPPROTO_IP), WORD(IPPROTO_TCP),
                            WORD(IPPROTO_IPV6), WORD(IPPROTO_UDP)};
constexpr Word kSocketOptions[] = {
    WORD(SO_REUSEADDR), WORD(SO_REUSEPORT), WORD(SO_KEEPALIVE),    WORD(SO_LINGER),
    WORD(SO_SNDBUF),    WORD(SO_RCVBUF),    WORD(SO_RCVTIMEO),     WORD(SO_SNDTIMEO),
    WORD(SO_ERROR),     WORD(SO_TYPE),      WORD(SO_BROADCAST),    WORD(SO_ACCEPTCONN),
    WORD(SO_DOMAIN),    WORD(SO_PROTOCOL),  WORD(SO_DONTROUTE),    WORD(SO_OOBINLINE),
    WORD(SO_RCVLOWAT),  WORD(SO_PEERCRED),  WORD(SO_BINDTODEVICE), WORD(SO_TIMESTAMP)};
constexpr Word kTcpOptions[] = {WORD(TCP_NODELAY),      WORD(TCP_CORK),         WORD(TCP_MAXSEG),
                                WORD(TCP_KEEPIDLE),     WORD(TCP_KEEPINTVL),    WORD(TCP_KEEPCNT),
                                WORD(TCP_USER_TIMEOUT), WORD(TCP_INFO),         WORD(TCP_QUICKACK),
                                WORD(TCP_CONGESTION),   WORD(TCP_DEFER_ACCEPT), WORD(TCP_FASTOPEN)};
constexpr Word kIpOptions[] = {WORD(IP_TTL),
                               WORD(IP_TOS),
                               WORD(IP_RECVERR),
                               WORD(IP_PKTINFO),
                               WORD(IP_MULTICAST_IF),
                               WORD(IP_MULTICAST_TTL),
                               WORD(IP_MULTICAST_LOOP),
                               WORD(IP_ADD_MEMBERSHIP),
                               WORD(IP_DROP_MEMBERSHIP),
                               WORD(IP_MTU_DISCOVER)};
constexpr Word kIpv6Options[] = {WORD(IPV6_V6ONLY),         WORD(IPV6_MULTICAST_IF),
                                 WORD(IPV6_MULTICAST_HOPS), WORD(IPV6_MULTICAST_LOOP),
                                 WORD(IPV6_JOIN_GROUP),     WORD(IPV6_LEAVE_GROUP),
                                 WORD(IPV6_UNICAST_HOPS),   WORD(IPV6_RECVERR)};
constexpr Word kHows[] = {WORD(SHUT_RD), WORD(SHUT_WR), WORD(SHUT_RDWR)};
constexpr Word kFcntlCommands[] = {
    WORD(F_DUPFD), WORD(F_GETFD), WORD(F_SETFD),  WORD(F_GETFL),  WORD(F_SETFL),
    WORD(F_GETLK), WORD(F_SETLK), WORD(F_SETLKW), WORD(F_SETOWN), WORD(F_DUPFD_CLOEXEC)};
constexpr Word kOpenFlags[] = {WORD(O_WRONLY), WORD(O_RDWR),  WORD(O_NONBLOCK),
                               WORD(O_APPEND), WORD(O_ASYNC), WORD(O_CLOEXEC)};
constexpr Word kPollEvents[] = {WORD(POLLIN),     WORD(POLLPRI),    WORD(POLLOUT),
                                WORD(POLLERR),    WORD(POLLHUP),    WORD(POLLNVAL),
                                WORD(POLLRDHUP),  WORD(POLLRDNORM), WORD(POLLRDBAND),
                                WORD(POLLWRNORM), WORD(POLLWRBAND)};
constexpr Word kEpollEvents[] = {WORD(EPOLLIN),      WORD(EPOLLPRI),    WORD(EPOLLOUT),
                                 WORD(EPOLLERR),     WORD(EPOLLHUP),    WORD(EPOLLRDHUP),
                                 WORD(EPOLLRDNORM),  WORD(EPOLLRDBAND), WORD(EPOLLWRNORM),
                                 WORD(EPOLLWRBAND),  WORD(EPOLLWAKEUP), WORD(EPOLLEXCLUSIVE),
                                 WORD(EPOLLONESHOT), WORD(EPOLLET)};
constexpr Word kEpollOperations[] = {WORD(EPOLL_CTL_ADD), WORD(EPOLL_CTL_DEL), WORD(EPOLL_CTL_MOD)};
#undef WORD

json one_of(std::span<const Word> words, std::int64_t value) {
  for (const Word& word : words) {
    if (word.value == value) return word.name;
  }
  return value;
}

// "A|B|0x40": the names of the bits, and what is left as a number. No bit at all is "0".
std::string bits_of(std::span<const Word> words, std::uint64_t value) {
  std::string text;
  for (const Word& word : words) {
    const auto bit = static_cast<std::uint64_t>(word.value);
    if (bit == 0 || (value & bit) != bit) continue;
    text.append(text.empty() ? "" : "|").append(word.name);
    value &= ~bit;
  }
  if (value != 0 || text.empty()) {
    std::array<char, 24> rest{};
    std::snprintf(rest.data(), rest.size(), value == 0 ? "0" : "0x%lx", value);
    text.append(text.empty() ? "" : "|").append(rest.data());
  }
  return text;
}

json option_name(std::int64_t level, std::int64_t option) {
  switch (level) {
    case SOL_SOCKET:
      return one_of(kSocketOptions, option);
    case IPPROTO_TCP:
      return one_of(kTcpOptions, option);
    case IPPROTO_IP:
      return one_of(kIpOptions, option);
    case IPPROTO_IPV6:
      return one_of(kIpv6Options, option);
    default:
      return option;
  }
}

json socket_type(std::uint64_t value) {
  constexpr std::uint64_t kTypeMask = 0xf;
  const json name = one_of(kSocketTypes, static_cast<std::int64_t>(value & kTypeMask));
  const std::uint64_t flags = value & ~kTypeMask;
  const std::string type = name.is_string() ? name.get<std::string>() : "";
  if (flags == 0) return type.empty() ? json(value) : json(type);
  return (type.empty() ? "" : type + "|") + bits_of(kSocketFlags, flags);
}

json address_at(std::uint64_t address, std::size_t size, const Memory& memory) {
  if (address == 0) return nullptr;
  return address_of(memory.read(address, std::min(size, sizeof(sockaddr_storage))));
}

// `level` and `option` are the two arguments before.
json option_value(std::uint64_t level, std::uint64_t option, std::uint64_t address,
                  std::size_t size, const Memory& memory) {
  if (address == 0) return nullptr;
  if (size == sizeof(int)) return memory.value<int>(address);
  const bool generic = level == SOL_SOCKET;
  const bool timed = generic && (option == SO_RCVTIMEO || option == SO_SNDTIMEO);
  if (timed && size == sizeof(timeval)) {
    const auto time = memory.value<timeval>(address);
    return time.tv_sec * 1'000'000'000 + time.tv_usec * 1000;
  }
  if (generic && option == SO_LINGER && size == sizeof(linger)) {
    const auto value = memory.value<linger>(address);
    return json::array({value.l_onoff, value.l_linger});
  }
  return {{"size", size}};
}

json poll_list(std::uint64_t address, std::uint64_t count, bool ended, const Memory& memory) {
  json list = json::array();
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, kMostEntries); ++i) {
    const auto entry = memory.value<pollfd>(address + i * sizeof(pollfd));
    list.push_back({{"fd", entry.fd},
                    {"events", bits_of(kPollEvents, static_cast<std::uint16_t>(entry.events))}});
    if (ended) {
      list.back()["revents"] = bits_of(kPollEvents, static_cast<std::uint16_t>(entry.revents));
    }
  }
  return list;
}

json descriptor_set(std::uint64_t address, std::uint64_t count, const Memory& memory) {
  if (address == 0) return nullptr;
  json list = json::array();
  const std::vector<std::byte> bits =
      memory.read(address, (std::min<std::uint64_t>(count, FD_SETSIZE) + 7) / 8);
  for (std::size_t fd = 0; fd < bits.size() * 8 && list.size() < kMostEntries; ++fd) {
    if ((std::to_integer<unsigned>(bits[fd / 8]) >> fd % 8 & 1U) != 0) list.push_back(fd);
  }
  return list;
}

json epoll_event_of(std::uint64_t address, const Memory& memory) {
  const auto event = memory.value<epoll_event>(address);
  return {{"events", bits_of(kEpollEvents, event.events)}, {"data", event.data.fd}};
}

json signal_name(std::uint64_t number) {
  const char* name = ::sigabbrev_np(static_cast<int>(number));
  return name == nullptr ? json(number) : json("SIG" + std::string(name));
}

json fcntl_value(std::uint64_t command, std::uint64_t value) {
  if (command == F_SETFL) return bits_of(kOpenFlags, value);
  if (command == F_SETFD) return value == FD_CLOEXEC ? json("FD_CLOEXEC") : json(value);
  const bool number = command == F_DUPFD || command == F_DUPFD_CLOEXEC || command == F_SETOWN;
  return number ? json(static_cast<int>(value)) : json();  // F_GETFL has none: what lies there
}

json message_name(std::uint64_t address, bool filled, const Memory& memory) {
  const auto message = memory.value<msghdr>(address);
  json object = {{"name", address_at(reinterpret_cast<std::uintptr_t>(message.msg_name),
                                     message.msg_namelen, memory)},
                 {"count", message.msg_iovlen}};
  if (filled) {
    object["flags"] = bits_of(kMessageFlags, static_cast<std::uint32_t>(message.msg_flags));
  }
  return object;
}

json decode_in(Arg kind, std::size_t i, const Registers& args, const Memory& memory) {
  const std::uint64_t value = args[i];
  const std::uint64_t next = i + 1 < args.size() ? args[i + 1] : 0;
  const auto number = static_cast<int>(value);
  switch (kind) {
    case Arg::kInt:
    case Arg::kFd:
      return number;
    case Arg::kSize:
      return value;
    case Arg::kPath:
      return memory.text(value);
    case Arg::kDomain:
      return one_of(kDomains, number);
    case Arg::kSocketType:
      return socket_type(value);
    case Arg::kAddressIn:
      return address_at(value, next, memory);
    case Arg::kBufferIn:
    case Arg::kBufferOut:
      return {{"size", next}};
    case Arg::kMessageIn:
      return message_name(value, false, memory);
    case Arg::kMessageFlags:
      return bits_of(kMessageFlags, static_cast<std::uint32_t>(value));
    case Arg::kLevel:
      return one_of(kLevels, number);
    case Arg::kOption:
      return option_name(static_cast<int>(args[i - 1]), number);
    case Arg::kOptionValueIn:
      return option_value(args[i - 2], args[i - 1], value, next, memory);
    case Arg::kHow:
      return one_of(kHows, number);
    case Arg::kFcntlCommand:
      return one_of(kFcntlCommands, number);
    case Arg::kFcntlValue:
      return fcntl_value(args[i - 1], value);
    case Arg::kPollList:
      return poll_list(value, next, false, memory);
    case Arg::kTimespec: {
      if (value == 0) return nullptr;
      const auto time = memory.value<timespec>(value);
      return time.tv_sec * 1'000'000'000 + time.tv_nsec;
    }
    case Arg::kTimeval: {
      if (value == 0) return nullptr;
      const auto time = memory.value<timeval>(value);
      return time.tv_sec * 1'000'000'000 + time.tv_usec * 1000;
    }
    case Arg::kMilliseconds:
      return number < 0 ? json() : json(std::int64_t{number} * 1'000'000);
    case Arg::kFdSet:
      return descriptor_set(value, args[0], memory);
    case Arg::kEpollOperation:
      return one_of(kEpollOperations, number);
    case Arg::kEpollEvent:
      return value == 0 ? json() : epoll_event_of(value, memory);
    case Arg::kSignal:
      return signal_name(value);
    case Arg::kOpenFlags:
      return bits_of(kOpenFlags, static_cast<std::uint32_t>(value));
    default:
      return nullptr;
  }
}

// The first `size` bytes of what lies in the parts of a vector.
std::vector<std::byte> gather(std::uint64_t vector, std::uint64_t count, std::size_t size,
                              const Memory& memory) {
  std::vector<std::byte> bytes;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, kMostEntries); ++i) {
    if (bytes.size() >= size) break;
    const auto part = memory.value<iovec>(vector + i * sizeof(iovec));
    const auto base = reinterpret_cast<std::uintptr_t>(part.iov_base);
    const auto read = memory.read(base, std::min(size - bytes.size(), part.iov_len));
    bytes.insert(bytes.end(), read.begin(), read.end());
  }
  return bytes;
}

}  // namespace

std::span<const CallSpec> traced_calls() { return kCalls; }

const CallSpec* find_call(long number) {
  const auto* found = std::find_if(std::begin(kCalls), std::end(kCalls),
                                   [&](const CallSpec& call) { return call.number == number; });
  return found == std::end(kCalls) ? nullptr : found;
}

std::vector<sock_filter> call_filter(bool allow_io_uring) {
#if defined(__x86_64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif
  constexpr std::uint32_t kX32Bit = 0x40000000;  // asm/unistd.h: another set of calls
  const auto statement = [](int code, std::uint32_t value) {
    return sock_filter{static_cast<std::uint16_t>(code), 0, 0, value};
  };
  const auto jump = [](int code, std::uint32_t value, std::size_t yes, std::size_t no) {
    return sock_filter{static_cast<std::uint16_t>(code), static_cast<std::uint8_t>(yes),
                       static_cast<std::uint8_t>(no), value};
  };
  constexpr int kLoad = BPF_LD | BPF_W | BPF_ABS, kEqual = BPF_JMP | BPF_JEQ | BPF_K,
                kAtLeast = BPF_JMP | BPF_JGE | BPF_K, kReturn = BPF_RET | BPF_K;
  const std::size_t calls = traced_calls().size();
  // The end of the program: allow, trace, refuse; each test jumps there.
  std::vector<sock_filter> filter = {
      statement(kLoad, offsetof(seccomp_data, arch)),
      jump(kEqual, kArchitecture, 0, calls + 5),
      statement(kLoad, offsetof(seccomp_data, nr)),
      jump(kAtLeast, kX32Bit, calls + 3, 0),
      jump(kEqual, SYS_io_uring_setup, allow_io_uring ? calls : calls + 2, 0),
  };
  for (std::size_t i = 0; i < calls; ++i) {
    const auto number = static_cast<std::uint32_t>(traced_calls()[i].number);
    filter.push_back(jump(kEqual, number, calls - i, 0));
  }
  filter.push_back(statement(kReturn, SECCOMP_RET_ALLOW));
  filter.push_back(statement(kReturn, SECCOMP_RET_TRACE));
  filter.push_back(statement(kReturn, SECCOMP_RET_ERRNO | ENOSYS));
  return filter;
}

std::vector<std::byte> Memory::read(std::uint64_t address, std::size_t size) const {
  std::vector<std::byte> bytes(size);
  const iovec to{bytes.data(), size};
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address in another process
  const iovec from{reinterpret_cast<void*>(address), size};
  const ssize_t got = size == 0 ? 0 : ::process_vm_readv(pid_, &to, 1, &from, 1, 0);
  bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return bytes;
}

std::string Memory::text(std::uint64_t address) const {
  constexpr std::size_t kMost = 256, kPage = 4096;
  std::string text;
  while (text.size() < kMost) {
    // Not across the end of a page: what comes behind it may not be there.
    const std::size_t step = std::min(kMost - text.size(), kPage - (address + text.size()) % kPage);
    const std::vector<std::byte> bytes = read(address + text.size(), step);
    if (bytes.empty()) break;
    for (const std::byte byte : bytes) {
      if (byte == std::byte{0}) return text;
      text += static_cast<char>(byte);
    }
  }
  return text;
}

json decode_entry(const CallSpec& call, const Registers& args, const Memory& memory) {
  json list = json::array();
  for (std::size_t i = 0; i < call.args.size(); ++i) {
    const ArgSpec& arg = call.args[i];
    if (arg.kind == Arg::kNone) break;
    if (arg.kind == Arg::kPointer) continue;
    list.push_back({{"name", arg.name}, {"value", decode_in(arg.kind, i, args, memory)}});
  }
  return list;
}

void decode_exit(const CallSpec& call, const Registers& args, std::int64_t result,
                 const Memory& memory, json& decoded) {
  const auto set = [&](const char* name, json value) {
    for (json& entry : decoded) {
      if (entry["name"] != name) continue;
      entry["value"] = std::move(value);
      break;
    }
  };
  for (std::size_t i = 0; i < call.args.size(); ++i) {
    const ArgSpec& arg = call.args[i];
    const std::uint64_t at = args[i], next = i + 1 < args.size() ? args[i + 1] : 0;
    switch (arg.kind) {
      case Arg::kAddressOut:
        if (at != 0) set(arg.name, address_at(at, memory.value<socklen_t>(next), memory));
        break;
      case Arg::kOptionValueOut:
        set(arg.name,
            option_value(args[i - 2], args[i - 1], at, memory.value<socklen_t>(next), memory));
        break;
      case Arg::kMessageOut:
        set(arg.name, message_name(at, true, memory));
        break;
      case Arg::kPollList:
        set(arg.name, poll_list(at, next, true, memory));
        break;
      case Arg::kFdSet:
        set(arg.name, descriptor_set(at, args[0], memory));
        break;
      case Arg::kEpollEventsOut: {
        json list = json::array();
        for (std::int64_t n = 0; n < std::min<std::int64_t>(result, kMostEntries); ++n) {
          const auto offset = static_cast<std::uint64_t>(n) * sizeof(epoll_event);
          list.push_back(epoll_event_of(at + offset, memory));
        }
        set(arg.name, std::move(list));
        break;
      }
      case Arg::kFdPairOut: {
        const auto pair = memory.value<std::array<int, 2>>(at);
        set(arg.name, json::array({pair[0], pair[1]}));
        break;
      }
      default:
        break;
    }
  }
}

json moved_bytes(const CallSpec& call, const Registers& args, std::int64_t result,
                 const Memory& memory) {
  const std::size_t size = std::min(static_cast<std::size_t>(result), kHead);
  for (std::size_t i = 0; i + 1 < call.args.size(); ++i) {
    std::vector<std::byte> head;
    switch (call.args[i].kind) {
      case Arg::kBufferIn:
      case Arg::kBufferOut:  // with MSG_TRUNC the result may be more than the buffer holds
        head = memory.read(args[i], std::min<std::size_t>(size, args[i + 1]));
        break;
      case Arg::kVectorIn:
      case Arg::kVectorOut:
        head = gather(args[i], args[i + 1], size, memory);
        break;
      case Arg::kMessageIn:
      case Arg::kMessageOut: {
        const auto message = memory.value<msghdr>(args[i]);
        const auto vector = reinterpret_cast<std::uintptr_t>(message.msg_iov);
        head = gather(vector, message.msg_iovlen, size, memory);
        break;
      }
      default:
        continue;
    }
    return {{"size", result}, {"head", encode_base64(head)}};
  }
  return nullptr;
}

std::string error_name(int error) {
  switch (error) {  // include/linux/errno.h: never seen by the program itself
    case 512:
      return "ERESTARTSYS";
    case 513:
      return "ERESTARTNOINTR";
    case 514:
      return "ERESTARTNOHAND";
    case 516:
      return "ERESTART_RESTARTBLOCK";
    default:
      break;
  }
  const char* name = ::strerrorname_np(error);
  return name == nullptr ? std::string("E").append(std::to_string(error)) : std::string(name);
}

json address_of(std::span<const std::byte> bytes) {
  sockaddr_storage storage{};
  if (bytes.size() < sizeof(sa_family_t)) return nullptr;
  std::memcpy(&storage, bytes.data(), std::min(bytes.size(), sizeof(storage)));
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET && bytes.size() >= sizeof(sockaddr_in)) {
    sockaddr_in address{};
    std::memcpy(&address, &storage, sizeof(address));
    ::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
    return json::array({text.data(), ntohs(address.sin_port)});
  }
  if (storage.ss_family == AF_INET6 && bytes.size() >= sizeof(sockaddr_in6)) {
    sockaddr_in6 address{};
    std::memcpy(&address, &storage, sizeof(address));
    ::inet_ntop(AF_INET6, &address.sin6_addr, text.data(), text.size());
    return json::array({text.data(), ntohs(address.sin6_port)});
  }
  if (storage.ss_family == AF_UNIX) {
    std::string path;
    for (const std::byte byte : bytes.subspan(sizeof(sa_family_t))) {
      if (byte == std::byte{0} && !path.empty()) break;
      path += byte == std::byte{0} ? '@' : static_cast<char>(byte);  // unix(7): abstract
    }
    return path;
  }
  return nullptr;
}

std::string encode_base64(std::span<const std::byte> bytes) {
  constexpr const char* kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group =
          group << 8 | (i + j < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text += i + j > bytes.size() ? '=' : kLetters[group >> (18 - 6 * j) & 63];
    }
  }
  return text;
}

}  // namespace testbed
