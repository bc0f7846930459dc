// resolve.h - from names to addresses.
//
// resolve() is getaddrinfo(3): it may read files, ask name servers and wait for their answers. It
// returns the whole list, because the first address is often not the one that answers (a name with
// an IPv6 and an IPv4 address, and a server that has only one of them).
//
// It is not one system call, and it is the only function of this library that resolves names.
//
// Thread-safety: getaddrinfo(3) is thread-safe, and nothing is kept between calls.
//
// Example:
//   auto endpoints = sock::resolve("www.example.com", "http");
//   if (!endpoints) return sock::report("client", endpoints.error());  // client: getaddrinfo: ...
//   for (const sock::Endpoint& endpoint : *endpoints) ...

#pragma once

#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <string_view>
#include <vector>

#include "sock/address.h"
#include "sock/error.h"

namespace sock {

// What socket(2) and connect(2) or bind(2) need to know.
struct Endpoint {
  SocketAddress address;
  int type = 0;
  int protocol = 0;
};

// Whether `text` can be a port: a number from 0 to 65535, or a name such as "http", which begins
// with a letter. Ask before getaddrinfo(3) does: glibc takes 70000 and -1 and cuts them to 16 bits.
inline bool is_service(std::string_view text) noexcept {
  const char first = text.empty() ? '\0' : text.front();
  const bool letter = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
  return letter || parse_port(text).has_value();
}

// Every address of `host` and `service` in the order of getaddrinfo(3), at least one. For a server
// pass AI_PASSIVE: then a null host means every local address. AI_ADDRCONFIG would leave out
// families that this machine has no address of, but it does not count ::1 and 127.0.0.1 as one.
// Errors are EAI_* codes in Domain::gai, or the errno value when getaddrinfo says EAI_SYSTEM.
// std::bad_alloc when the list does not fit in memory.
inline Result<std::vector<Endpoint>> resolve(const char* host, const char* service,
                                             int family = AF_UNSPEC, int type = SOCK_STREAM,
                                             int ai_flags = 0) {
  addrinfo hints{};
  hints.ai_flags = ai_flags;
  hints.ai_family = family;
  hints.ai_socktype = type;
  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(host, service, &hints, &list);
  if (code == EAI_SYSTEM) return Error::last("getaddrinfo");
  if (code != 0) return Error{code, "getaddrinfo", Error::Domain::gai};

  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  std::vector<Endpoint> endpoints;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    endpoints.push_back(
        {SocketAddress(entry->ai_addr, entry->ai_addrlen), entry->ai_socktype, entry->ai_protocol});
  }
  return endpoints;
}

}  // namespace sock
