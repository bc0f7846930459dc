// socket_table.h - the kernel's table of TCP and UDP sockets of one host (sock_diag(7)).
//
// find() asks for one connection by its two ends, which is what barriers do; rows() lists all.
// States are the kernel's own; a TCP socket that is bound but neither listening nor connected is
// shown as BOUND by kernels that can (6.8 and later). Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hosts.h"
#include "netlink.h"

namespace testbed {

enum class Protocol { kTcp, kUdp };

struct End {
  std::string address;
  std::uint16_t port = 0;
  friend bool operator==(const End&, const End&) = default;
};

struct Row {
  Protocol protocol = Protocol::kTcp;
  int family = 0;
  bool mapped = false;  // an IPv6 socket that talks IPv4; the addresses are shown as IPv4
  End local, remote;
  std::string state;
  std::uint32_t rqueue = 0, wqueue = 0;
  std::uint64_t inode = 0;
  std::uint32_t uid = 0;
  std::uint8_t timer = 0;  // 0 none, 1 retransmit, 2 keepalive, 3 TIME_WAIT, 4 zero-window probe
  std::uint32_t timer_ms = 0;
  std::uint8_t retransmits = 0;
};

class SocketTable {
 public:
  // Opens the query socket inside `host`.
  SocketTable(const Network& network, const Host& host);

  enum class Bound { kLeftOut, kShown };

  // All rows of the protocol, IPv4 and IPv6. Rows in the state BOUND cost the kernel a walk through
  // the table of ports.
  std::vector<Row> rows(Protocol protocol, Bound bound = Bound::kLeftOut);
  // The TCP connection with these ends, or the listener at `local` when the port of `remote` is 0;
  // absent when the kernel has no row for it.
  std::optional<Row> find(const End& local, const End& remote);

 private:
  void dump(Protocol protocol, int family, Bound bound, std::vector<Row>& rows);
  std::unique_ptr<Netlink> netlink_;
};

}  // namespace testbed
