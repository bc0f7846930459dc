// address.h - a socket address of any family, as a value.
//
// SocketAddress holds a sockaddr together with its length, because neither means anything without
// the other. Ports are in host order in every function here; the htons(3) is inside.
//
// It is not a resolver: nothing here asks a name server or reads a file. For names see resolve.h.
//
// Thread-safety: a plain value, as thread-safe as an int.
//
// Example:
//   auto any = sock::SocketAddress::ipv6_any(7000);
//   auto peer = sock::SocketAddress::parse("[2001:db8::1]:80");   // also "192.0.2.1:80", "unix:/p"
//   if (peer) std::cout << peer->to_string() << '\n';             // what parse() reads

#pragma once

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "sock/error.h"

namespace sock {

// The whole of `text` as a number from 0 to `limit`; nothing for "", "80x", "-1", "+80", " 80".
inline std::optional<std::uint32_t> parse_number(std::string_view text,
                                                 std::uint32_t limit) noexcept {
  std::uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stop != end || number > limit) return std::nullopt;
  return number;
}

// A port number, 0 to 65535, in host order.
inline std::optional<std::uint16_t> parse_port(std::string_view text) noexcept {
  const auto number = parse_number(text, 65535);
  if (!number) return std::nullopt;
  return static_cast<std::uint16_t>(*number);
}

class SocketAddress {
 public:
  // AF_UNSPEC, size 0: no address.
  SocketAddress() noexcept : storage_{} {}

  // A copy of a sockaddr that the kernel or getaddrinfo(3) made.
  SocketAddress(const sockaddr* address, socklen_t size) noexcept : storage_{} {
    size_ = std::min(size, capacity());
    std::memcpy(&storage_, address, size_);
  }

  static SocketAddress ipv4(in_addr host, std::uint16_t port) noexcept {
    SocketAddress address;
    address.in_.sin_family = AF_INET;
    address.in_.sin_port = htons(port);
    address.in_.sin_addr = host;
    address.size_ = sizeof(sockaddr_in);
    return address;
  }
  static SocketAddress ipv4_any(std::uint16_t port) noexcept {
    return ipv4({htonl(INADDR_ANY)}, port);
  }
  static SocketAddress ipv4_loopback(std::uint16_t port) noexcept {
    return ipv4({htonl(INADDR_LOOPBACK)}, port);
  }

  // `scope` is the index of an interface; only link-local addresses (fe80::/10) need one.
  static SocketAddress ipv6(const in6_addr& host, std::uint16_t port,
                            std::uint32_t scope = 0) noexcept {
    SocketAddress address;
    address.in6_.sin6_family = AF_INET6;
    address.in6_.sin6_port = htons(port);
    address.in6_.sin6_addr = host;
    address.in6_.sin6_scope_id = scope;
    address.size_ = sizeof(sockaddr_in6);
    return address;
  }
  static SocketAddress ipv6_any(std::uint16_t port) noexcept { return ipv6(in6addr_any, port); }
  static SocketAddress ipv6_loopback(std::uint16_t port) noexcept {
    return ipv6(in6addr_loopback, port);
  }

  // A UNIX address (unix(7)): a path, or a name in the abstract namespace when it begins with '@'.
  // ENAMETOOLONG beyond 107 bytes (sun_path holds 108 with its NUL); EINVAL for an empty path.
  static Result<SocketAddress> unix_path(std::string_view path) noexcept {
    constexpr std::size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
    if (path.empty()) return Error{EINVAL, "unix_path"};
    if (path.size() > kMaxPath) return Error{ENAMETOOLONG, "unix_path"};
    SocketAddress address;
    address.un_.sun_family = AF_UNIX;
    std::memcpy(address.un_.sun_path, path.data(), path.size());
    const bool abstract = path.front() == '@';
    if (abstract) address.un_.sun_path[0] = '\0';
    // A path counts its final NUL; an abstract name is exactly as long as its size says.
    address.size_ = static_cast<socklen_t>(kUnixPathOffset + path.size() + (abstract ? 0U : 1U));
    return address;
  }

  // A numeric address without a port: "192.0.2.1", "2001:db8::1", "fe80::1%eth0" (inet_pton(3)).
  // EINVAL for anything else. A scope given by name costs if_nametoindex(3).
  static Result<SocketAddress> parse_host(std::string_view host, std::uint16_t port) {
    const std::size_t percent = std::min(host.find('%'), host.size());
    const std::string digits(host.substr(0, percent));
    in_addr v4{};
    if (percent == host.size() && ::inet_pton(AF_INET, digits.c_str(), &v4) == 1) {
      return ipv4(v4, port);
    }
    in6_addr v6{};
    const auto scope = parse_scope(host.substr(percent));
    if (!scope || ::inet_pton(AF_INET6, digits.c_str(), &v6) != 1) return Error{EINVAL, "parse"};
    return ipv6(v6, port, *scope);
  }

  // The inverse of to_string(): "192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80",
  // "unix:/run/s", "unix:@name". EINVAL when it is none of these. Names are not resolved.
  static Result<SocketAddress> parse(std::string_view text) {
    constexpr std::string_view kUnix = "unix:";
    if (text.starts_with(kUnix)) return unix_path(text.substr(kUnix.size()));
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return Error{EINVAL, "parse"};
    std::string_view host = text.substr(0, colon);
    const auto port = parse_port(text.substr(colon + 1));
    const bool brackets = host.starts_with('[') && host.ends_with(']');
    if (brackets) host = host.substr(1, host.size() - 2);
    // IPv6 has colons and stands in brackets, IPv4 has neither: "::1:80" could mean two things.
    const bool colons = host.find(':') != std::string_view::npos;
    if (!port || brackets != colons) return Error{EINVAL, "parse"};
    return parse_host(host, *port);
  }

  [[nodiscard]] const sockaddr* data() const noexcept { return &any_; }
  sockaddr* data() noexcept { return &any_; }
  [[nodiscard]] socklen_t size() const noexcept { return size_; }

  // For the calls that fill an address in: accept4(address.data(), address.size_ptr()). The kernel
  // reads the room there is and writes what it used (a "value-result" argument, accept(2)), so
  // this sets the size to the whole capacity first.
  socklen_t* size_ptr() noexcept {
    size_ = capacity();
    return &size_;
  }
  static constexpr socklen_t capacity() noexcept { return sizeof(sockaddr_storage); }

  // AF_UNSPEC when there is no address (an unnamed UNIX socket has AF_UNIX and an empty path).
  [[nodiscard]] sa_family_t family() const noexcept {
    return size_ < sizeof(sa_family_t) ? sa_family_t{AF_UNSPEC} : any_.sa_family;
  }

  // In host order; 0 for families without ports.
  [[nodiscard]] std::uint16_t port() const noexcept {
    if (family() == AF_INET) return ntohs(in_.sin_port);
    if (family() == AF_INET6) return ntohs(in6_.sin6_port);
    return 0;
  }

  // The address without its port: "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "/run/s", "@name".
  // The name of a scope costs if_indextoname(3); without that interface its number stands there.
  [[nodiscard]] std::string host() const {
    switch (family()) {
      case AF_INET: {
        std::array<char, INET_ADDRSTRLEN> text{};
        return ::inet_ntop(AF_INET, &in_.sin_addr, text.data(), text.size());
      }
      case AF_INET6: {
        std::array<char, INET6_ADDRSTRLEN> text{};
        ::inet_ntop(AF_INET6, &in6_.sin6_addr, text.data(), text.size());
        return text.data() + scope_text();
      }
      case AF_UNIX:
        return unix_text();
      default:
        return {};
    }
  }

  // The inverse of parse(). "" for no address.
  [[nodiscard]] std::string to_string() const {
    switch (family()) {
      case AF_INET:
        return host() + ":" + std::to_string(port());
      case AF_INET6:
        return "[" + host() + "]:" + std::to_string(port());
      case AF_UNIX:
        return "unix:" + host();
      default:
        return {};
    }
  }

  // Same family and same address, port, scope or path. Padding and flow information do not count.
  friend bool operator==(const SocketAddress& left, const SocketAddress& right) noexcept {
    if (left.family() != right.family()) return false;
    switch (left.family()) {
      case AF_INET:
        return left.in_.sin_port == right.in_.sin_port &&
               left.in_.sin_addr.s_addr == right.in_.sin_addr.s_addr;
      case AF_INET6:
        return left.in6_.sin6_port == right.in6_.sin6_port &&
               left.in6_.sin6_scope_id == right.in6_.sin6_scope_id &&
               IN6_ARE_ADDR_EQUAL(&left.in6_.sin6_addr, &right.in6_.sin6_addr);
      case AF_UNIX:
        return left.unix_name() == right.unix_name();
      default:
        return left.size_ == right.size_ &&
               std::memcmp(&left.storage_, &right.storage_, left.size_) == 0;
    }
  }

 private:
  static constexpr std::size_t kUnixPathOffset = offsetof(sockaddr_un, sun_path);

  // "" is no scope; "%eth0" and "%2" are the index of an interface that exists (or a number).
  static std::optional<std::uint32_t> parse_scope(std::string_view text) {
    if (text.empty()) return 0;
    text.remove_prefix(1);
    if (const auto number = parse_number(text, UINT32_MAX)) return number;
    const std::uint32_t index = ::if_nametoindex(std::string(text).c_str());
    return index == 0 ? std::nullopt : std::optional(index);
  }

  [[nodiscard]] std::string scope_text() const {
    const std::uint32_t scope = in6_.sin6_scope_id;
    if (scope == 0) return {};
    std::array<char, IF_NAMESIZE> name{};
    if (::if_indextoname(scope, name.data()) == nullptr) return "%" + std::to_string(scope);
    return std::string("%") + name.data();
  }

  // The path, or the abstract name with its leading NUL. The kernel may or may not count the
  // final NUL of a path in the size, so only an abstract name takes its length from there.
  [[nodiscard]] std::string_view unix_name() const noexcept {
    if (size_ <= kUnixPathOffset) return {};
    const std::size_t length = std::min(size_ - kUnixPathOffset, sizeof un_.sun_path);
    const std::string_view name(un_.sun_path, length);
    return name.front() == '\0' ? name : name.substr(0, name.find('\0'));
  }

  [[nodiscard]] std::string unix_text() const {
    std::string name(unix_name());
    if (!name.empty() && name.front() == '\0') name.front() = '@';
    return name;
  }

  // A union, so that one object can be read as the type its family says without a pointer cast.
  union {
    sockaddr any_;
    sockaddr_in in_;
    sockaddr_in6 in6_;
    sockaddr_un un_;
    sockaddr_storage storage_;
  };
  socklen_t size_ = 0;
};

}  // namespace sock
