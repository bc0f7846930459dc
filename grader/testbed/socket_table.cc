#include "socket_table.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "refusal.h"

namespace testbed {
namespace {

// enum in the kernel's include/net/tcp_states.h; the last two are not in the user's headers.
constexpr const char* kStates[] = {
    "",      "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "SYN_RECV",  "BOUND"};

constexpr unsigned kBound = 13;

std::string state_name(unsigned state) {
  return state < std::size(kStates) ? kStates[state] : std::to_string(state);
}

bool is_mapped(int family, const std::uint32_t (&address)[4]) {
  return family == AF_INET6 && address[0] == 0 && address[1] == 0 && address[2] == htonl(0xffff);
}

std::string address_text(int family, const std::uint32_t (&address)[4]) {
  const bool mapped = is_mapped(family, address);
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(mapped ? AF_INET : family, mapped ? &address[3] : &address[0], text.data(),
              text.size());
  return text.data();
}

Row row_of(Protocol protocol, const inet_diag_msg& message) {
  Row row;
  row.protocol = protocol;
  row.family = message.idiag_family;
  row.mapped =
      is_mapped(row.family, message.id.idiag_src) || is_mapped(row.family, message.id.idiag_dst);
  row.local = {address_text(row.family, message.id.idiag_src), ntohs(message.id.idiag_sport)};
  row.remote = {address_text(row.family, message.id.idiag_dst), ntohs(message.id.idiag_dport)};
  row.state = state_name(message.idiag_state);
  row.rqueue = message.idiag_rqueue;
  row.wqueue = message.idiag_wqueue;
  row.inode = message.idiag_inode;
  row.uid = message.idiag_uid;
  row.timer = message.idiag_timer;
  row.timer_ms = message.idiag_expires;
  row.retransmits = message.idiag_retrans;
  return row;
}

void store_address(int family, const std::string& text, std::uint32_t (&address)[4]) {
  if (::inet_pton(family, text.c_str(), address) != 1) {
    throw Refusal("usage", "not a numeric address: " + text);
  }
}

}  // namespace

SocketTable::SocketTable(const Network& network, const Host& host) {
  network.inside(host, [&] { netlink_ = std::make_unique<Netlink>(NETLINK_SOCK_DIAG); });
}

void SocketTable::dump(Protocol protocol, int family, Bound bound, std::vector<Row>& rows) {
  inet_diag_req_v2 query{};
  query.sdiag_family = static_cast<std::uint8_t>(family);
  query.sdiag_protocol = protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
  query.idiag_states = bound == Bound::kShown ? ~0U : ~(1U << kBound);
  Request request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, query);
  (void)netlink_->query(request, [&](const nlmsghdr& header) {
    rows.push_back(row_of(protocol, body_of<inet_diag_msg>(header)));
  });
}

std::vector<Row> SocketTable::rows(Protocol protocol, Bound bound) {
  std::vector<Row> rows;
  dump(protocol, AF_INET, bound, rows);
  dump(protocol, AF_INET6, bound, rows);
  return rows;
}

std::optional<Row> SocketTable::find(const End& local, const End& remote) {
  const int family = local.address.find(':') == std::string::npos ? AF_INET : AF_INET6;
  inet_diag_req_v2 query{};
  query.sdiag_family = static_cast<std::uint8_t>(family);
  query.sdiag_protocol = IPPROTO_TCP;
  query.idiag_states = ~0U;
  store_address(family, local.address, query.id.idiag_src);
  store_address(family, remote.address, query.id.idiag_dst);
  query.id.idiag_sport = htons(local.port);
  query.id.idiag_dport = htons(remote.port);
  query.id.idiag_cookie[0] = query.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  Request request(SOCK_DIAG_BY_FAMILY, 0, query);
  std::optional<Row> found;
  (void)netlink_->query(request, [&](const nlmsghdr& header) {
    Row row = row_of(Protocol::kTcp, body_of<inet_diag_msg>(header));
    // Without a connection the kernel's look-up falls back to a listener on that port.
    if (row.state != "LISTEN" || remote.port == 0) found = std::move(row);
  });
  return found;
}

}  // namespace testbed
