#include "hosts.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>
#include <system_error>
#include <utility>

#include "refusal.h"
#include "sock/error.h"

namespace testbed {
namespace {

constexpr int kMtu = 1500;

void write_file(const std::string& path, std::string_view text) {
  const sock::Fd file(
      sock::check(::open(path.c_str(), O_WRONLY | O_CLOEXEC), path.c_str()).value());
  (void)sock::check(::write(file.get(), text.data(), text.size()), path.c_str()).value();
}

sock::Fd current_netns() {
  return sock::Fd(
      sock::check(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "open(/proc/self/ns/net)")
          .value());
}

// A table of the kernel's sockets is walked whole whenever it is listed. The machine's own, which
// namespaces share unless told otherwise (6.1 and later), has hundreds of thousands of buckets.
void give_children_small_tables() {
  for (const auto& [path, entries] :
       {std::pair{"/proc/sys/net/ipv4/tcp_child_ehash_entries", "4096"},
        std::pair{"/proc/sys/net/ipv4/udp_child_hash_entries", "1024"}}) {
    if (::access(path, F_OK) == 0) write_file(path, entries);
  }
}

sock::Fd new_netns() {
  (void)sock::check(::unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)").value();
  give_children_small_tables();
  return current_netns();
}

// Become root of a new user namespace (user_namespaces(7)): the only privilege tier T1 needs.
void enter_user_namespace() {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  (void)sock::check(::unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)").value();
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
  write_file("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
}

std::array<std::uint8_t, 6> mac_bytes(std::size_t number) {
  return {0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(number)};
}

struct Setting {
  const char* path;  // below /proc/sys/net/
  const char* value;
};

// One stack on every machine: Reno is the one congestion control every namespace may choose, and
// the buffers are small enough that the link can hold whatever a full window sends.
constexpr Setting kSettings[] = {
    {"ipv4/tcp_congestion_control", "reno"},
    {"ipv4/tcp_rmem", "4096 131072 1048576"},
    {"ipv4/tcp_wmem", "4096 65536 1048576"},
    {"ipv4/tcp_ecn", "0"},
    {"ipv4/tcp_no_metrics_save", "1"},
    {"ipv4/tcp_syncookies", "0"},
    // These follow the size of the socket table, which is small here.
    {"ipv4/tcp_max_syn_backlog", "4096"},
    {"ipv4/tcp_max_tw_buckets", "65536"},
    {"ipv4/ip_unprivileged_port_start", "0"},
    {"ipv6/conf/all/accept_dad", "0"},
    {"ipv6/conf/default/accept_dad", "0"},
    {"ipv6/conf/default/accept_ra", "0"},
    {"ipv6/conf/default/router_solicitations", "0"},
    {"ipv6/conf/default/addr_gen_mode", "1"},  // no link-local address of the kernel's choice
};

void set_offloads_off(const char* interface) {
  const sock::Fd socket(
      sock::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket").value());
  // Without this a veth carries unfilled checksums and 64 KiB "segments" that no wire ever saw.
  for (const std::uint32_t command :
       {std::uint32_t{ETHTOOL_SGSO}, std::uint32_t{ETHTOOL_STSO}, std::uint32_t{ETHTOOL_STXCSUM}}) {
    ethtool_value value{command, 0};
    ifreq request{};
    std::snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    request.ifr_data = reinterpret_cast<char*>(&value);
    (void)sock::check(::ioctl(socket.get(), SIOCETHTOOL, &request), "ioctl(SIOCETHTOOL)").value();
  }
}

int interface_index(const char* name) {
  const unsigned index = ::if_nametoindex(name);
  if (index == 0) throw std::system_error(errno, std::system_category(), "if_nametoindex");
  return static_cast<int>(index);
}

void link_up(Netlink& routes, int index) {
  ifinfomsg info{};
  info.ifi_index = index;
  info.ifi_flags = IFF_UP;
  info.ifi_change = IFF_UP;
  Request request(RTM_NEWLINK, NLM_F_ACK, info);
  routes.call(request, "link up");
}

// The address of a host of the LAN in the kernel's form; 4 or 16 bytes.
std::vector<std::uint8_t> address_bytes(int family, const std::string& text) {
  std::vector<std::uint8_t> bytes(family == AF_INET ? 4 : 16);
  if (::inet_pton(family, text.c_str(), bytes.data()) != 1) throw Refusal("usage", "bad address");
  return bytes;
}

void add_address(Netlink& routes, int index, int family, const std::string& text) {
  ifaddrmsg info{};
  info.ifa_family = static_cast<std::uint8_t>(family);
  info.ifa_prefixlen = family == AF_INET ? 24 : 64;
  info.ifa_index = static_cast<std::uint32_t>(index);
  Request request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, info);
  const std::vector<std::uint8_t> bytes = address_bytes(family, text);
  request.attribute(IFA_LOCAL, bytes.data(), bytes.size());
  request.attribute(IFA_ADDRESS, bytes.data(), bytes.size());
  request.attribute(IFA_FLAGS, std::uint32_t{IFA_F_NODAD} | std::uint32_t{IFA_F_PERMANENT});
  routes.call(request, "add address");
}

// A permanent neighbour, so that no ARP or ND frame stands between a call and its packet.
void add_neighbour(Netlink& routes, int index, int family, const std::string& text,
                   const std::array<std::uint8_t, 6>& mac) {
  ndmsg info{};
  info.ndm_family = static_cast<std::uint8_t>(family);
  info.ndm_ifindex = index;
  info.ndm_state = NUD_PERMANENT;
  Request request(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, info);
  const std::vector<std::uint8_t> bytes = address_bytes(family, text);
  request.attribute(NDA_DST, bytes.data(), bytes.size());
  request.attribute(NDA_LLADDR, mac.data(), mac.size());
  routes.call(request, "add neighbour");
}

bool ipv6_available() { return ::access("/proc/sys/net/ipv6", F_OK) == 0; }

}  // namespace

Tier parse_tier(const std::string& text) {
  if (text == "T0") return Tier::kLoopback;
  if (text == "T1") return Tier::kUser;
  if (text == "T2") return Tier::kRoot;
  throw Refusal("usage", "no such tier: " + text);
}

const char* tier_name(Tier tier) {
  switch (tier) {
    case Tier::kLoopback:
      return "T0";
    case Tier::kUser:
      return "T1";
    case Tier::kRoot:
      return "T2";
  }
  return "";
}

Network::Network(Tier tier, const std::vector<std::string>& names) : tier_(tier) {
  if (tier == Tier::kLoopback) {
    for (const std::string& name : names) {
      Host& host = hosts_.emplace_back();
      host.name = name;
      host.inet = "127.0.0.1";
      host.inet6 = ipv6_available() ? "::1" : "";
    }
    return;
  }
  if (tier == Tier::kUser) enter_user_namespace();
  make_link_namespace();
  make_hosts(names);
  for (Host& host : hosts_) make_veth(host);
  for (const Host& host : hosts_) inside(host, [&] { configure(host); });
}

// The process stays in the link's namespace. From a user namespace it could not return to the one
// it came from anyway.
void Network::make_link_namespace() {
  link_ns_ = new_netns();
  if (!ipv6_available()) return;
  // The link is a wire, not a host: it must not speak itself.
  write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
  write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

void Network::make_hosts(const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string number = std::to_string(i + 1);
    Host& host = hosts_.emplace_back();
    host.name = names[i];
    host.inet = "192.0.2." + number;
    host.inet6 = ipv6_available() ? "2001:db8::" + number : "";
    host.mac = "02:00:00:00:00:0" + number;
    host.ns = new_netns();
  }
  enter(link_ns_);
}

void Network::make_veth(Host& host) {
  const std::size_t number = static_cast<std::size_t>(&host - hosts_.data()) + 1;
  const std::string name = "h" + std::to_string(number);
  Request request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  request.attribute(IFLA_IFNAME, std::string_view(name));
  request.attribute(IFLA_MTU, std::uint32_t{kMtu});
  request.nested(IFLA_LINKINFO, [&] {
    request.attribute(IFLA_INFO_KIND, std::string_view("veth"));
    request.nested(IFLA_INFO_DATA, [&] {
      request.nested(VETH_INFO_PEER, [&] {
        const ifinfomsg peer{};
        request.append(&peer, sizeof(peer));
        request.attribute(IFLA_IFNAME, std::string_view("eth0"));
        request.attribute(IFLA_MTU, std::uint32_t{kMtu});
        request.attribute(IFLA_ADDRESS, mac_bytes(number));
        request.attribute(IFLA_NET_NS_FD, static_cast<std::uint32_t>(host.ns.get()));
      });
    });
  });
  Netlink routes(NETLINK_ROUTE);
  routes.call(request, "make veth");
  host.link_index = interface_index(name.c_str());
}

void Network::configure(const Host& host) {
  const bool ipv6 = !host.inet6.empty();
  for (const Setting& setting : kSettings) {
    if (!ipv6 && std::string_view(setting.path).starts_with("ipv6")) continue;
    write_file(std::string("/proc/sys/net/") + setting.path, setting.value);
  }
  if (ipv6) write_file("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode", "1");
  set_offloads_off("eth0");
}

void Network::up() {
  if (!has_link()) return;
  // The link's ends first: a host speaks (MLD) as soon as its own end is up.
  Netlink link_routes(NETLINK_ROUTE);
  for (const Host& host : hosts_) link_up(link_routes, host.link_index);
  for (const Host& host : hosts_) {
    inside(host, [&] {
      Netlink routes(NETLINK_ROUTE);
      const int eth0 = interface_index("eth0");
      link_up(routes, interface_index("lo"));
      link_up(routes, eth0);
      add_address(routes, eth0, AF_INET, host.inet);
      if (!host.inet6.empty()) add_address(routes, eth0, AF_INET6, host.inet6);
      for (const Host& other : hosts_) {
        if (&other == &host) continue;
        const auto mac = mac_bytes(static_cast<std::size_t>(&other - hosts_.data()) + 1);
        add_neighbour(routes, eth0, AF_INET, other.inet, mac);
        if (!other.inet6.empty()) add_neighbour(routes, eth0, AF_INET6, other.inet6, mac);
      }
    });
  }
}

const Host& Network::host(const std::string& name) const {
  for (const Host& host : hosts_) {
    if (host.name == name) return host;
  }
  throw Refusal("unknown", "no host named " + name);
}

const Host* Network::by_link_index(int index) const noexcept {
  for (const Host& host : hosts_) {
    if (host.link_index == index) return &host;
  }
  return nullptr;
}

void Network::enter(const sock::Fd& ns) const {
  (void)sock::check(::setns(ns.get(), CLONE_NEWNET), "setns").value();
}

void Network::inside(const Host& host, const std::function<void()>& action) const {
  if (!has_link()) return action();
  enter(host.ns);
  try {
    action();
  } catch (...) {
    enter(link_ns_);
    throw;
  }
  enter(link_ns_);
}

std::uint64_t Network::kernel_drops() {
  if (!has_link()) return 0;
  std::uint64_t drops = 0;
  const auto count = [&] {
    Netlink routes(NETLINK_ROUTE);
    ifinfomsg info{};
    Request request(RTM_GETLINK, NLM_F_DUMP, info);
    (void)routes.query(request, [&](const nlmsghdr& message) {
      for_each_attribute(message, sizeof(ifinfomsg),
                         [&](std::uint16_t type, std::span<const std::byte> data) {
                           rtnl_link_stats64 stats{};
                           if (type != IFLA_STATS64) return;
                           std::memcpy(&stats, data.data(), std::min(data.size(), sizeof(stats)));
                           drops += stats.rx_dropped + stats.tx_dropped;
                         });
    });
  };
  count();
  for (const Host& host : hosts_) inside(host, count);
  return drops;
}

}  // namespace testbed
