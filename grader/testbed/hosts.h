// hosts.h - the testbed's hosts: network namespaces with their own kernel stack, in one LAN.
//
// Network makes one namespace per host and one for the link; every host's eth0 is a veth whose
// other end lies in the link's namespace. Addresses, neighbours and the kernel's settings are fixed
// (DESIGN.md, "Tiers"), so that a run meets the same stack on every machine. Without namespaces
// (tier T0) all hosts are the machine's own loopback and there is no link.
//
// Not thread-safe: it moves the calling thread into the link's namespace, and into a host's and
// back.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "netlink.h"
#include "sock/fd.h"

namespace testbed {

enum class Tier { kLoopback, kUser, kRoot };  // T0, T1, T2

Tier parse_tier(const std::string& text);  // "T0", "T1", "T2"; throws Refusal("usage")
const char* tier_name(Tier tier);

struct Host {
  std::string name;
  std::string inet;    // "192.0.2.1"
  std::string inet6;   // "2001:db8::1"
  std::string mac;     // "02:00:00:00:00:01"
  sock::Fd ns;         // the network namespace; empty in T0
  int link_index = 0;  // interface index of the veth end in the link's namespace
};

class Network {
 public:
  // Makes the hosts, in the order of `names`. In T1 the calling process enters a new user
  // namespace, from which it cannot return. Throws std::system_error naming the refused call.
  Network(Tier tier, const std::vector<std::string>& names);

  [[nodiscard]] Tier tier() const noexcept { return tier_; }
  [[nodiscard]] bool has_link() const noexcept { return tier_ != Tier::kLoopback; }
  [[nodiscard]] const std::vector<Host>& hosts() const noexcept { return hosts_; }
  // Throws Refusal("unknown").
  [[nodiscard]] const Host& host(const std::string& name) const;
  [[nodiscard]] const Host* by_link_index(int index) const noexcept;

  // Runs `action` inside the host's namespace, then returns to the link's, where the process lives.
  void inside(const Host& host, const std::function<void()>& action) const;

  // Raises every interface. Until then no frame can pass, so a capture opened before misses none.
  void up();

  // Frames the kernel dropped on the veth pairs since they were made (rtnl_link_stats64).
  [[nodiscard]] std::uint64_t kernel_drops();

 private:
  void make_link_namespace();
  void make_hosts(const std::vector<std::string>& names);
  void make_veth(Host& host);
  void configure(const Host& host);
  void enter(const sock::Fd& ns) const;

  Tier tier_;
  sock::Fd link_ns_;
  std::vector<Host> hosts_;
};

}  // namespace testbed
