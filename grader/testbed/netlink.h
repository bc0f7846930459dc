// netlink.h - requests to the kernel's routing tables, one message at a time.
//
// Request builds one netlink message with (nested) attributes; Netlink sends it and waits for the
// kernel's answer. Only what the testbed needs of rtnetlink(7) and sock_diag(7). Not thread-safe.
//
// Example:
//   Netlink routes(NETLINK_ROUTE);                       // in the current network namespace
//   Request up(RTM_NEWLINK, 0, ifinfomsg{...});
//   up.attribute(IFLA_MTU, std::uint32_t{1500});
//   routes.call(up, "set link up");                      // throws std::system_error

#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "sock/fd.h"

namespace testbed {

class Request {
 public:
  // `body` is the fixed part of the message (ifinfomsg, ifaddrmsg, ndmsg, inet_diag_req_v2).
  template <class Body>
  requires std::is_trivially_copyable_v<Body> Request(std::uint16_t type, std::uint16_t flags,
                                                      const Body& body) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    append(&header, sizeof(header));
    append(&body, sizeof(body));
  }

  void attribute(std::uint16_t type, const void* data, std::size_t size);
  void attribute(std::uint16_t type, std::string_view text);  // with its NUL, as the kernel wants
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void attribute(std::uint16_t type, const T& value) { attribute(type, &value, sizeof(value)); }
  // Everything added by `fill` becomes the content of one attribute.
  void nested(std::uint16_t type, const std::function<void()>& fill);
  // Appends raw bytes, 4-byte aligned: the ifinfomsg of a veth peer lies so inside VETH_INFO_PEER.
  void append(const void* data, std::size_t size);

  // The finished message; valid until the request changes.
  std::span<const std::byte> finish(std::uint32_t sequence);

 private:
  std::vector<std::byte> bytes_;
};

// The fixed part of an answer message, copied out.
template <class Body>
requires std::is_trivially_copyable_v<Body> Body body_of(const nlmsghdr& header) {
  Body body{};
  std::memcpy(&body, reinterpret_cast<const char*>(&header) + NLMSG_HDRLEN, sizeof(body));
  return body;
}

// Gives each attribute of an answer message, after its fixed part of `body_size` bytes, to `each`.
void for_each_attribute(const nlmsghdr& header, std::size_t body_size,
                        const std::function<void(std::uint16_t, std::span<const std::byte>)>& each);

class Netlink {
 public:
  // Opens a netlink socket of `protocol` in the namespace current at this moment.
  explicit Netlink(int protocol);

  // Sends and waits for the acknowledgement. Throws std::system_error naming `what`.
  void call(Request& request, const char* what);
  // Sends a query and gives every answer message to `each`, until the kernel says that it is done.
  // Returns the errno of an error answer (ENOENT for a look-up without a hit), 0 otherwise.
  int query(Request& request, const std::function<void(const nlmsghdr&)>& each);

 private:
  sock::Fd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace testbed
