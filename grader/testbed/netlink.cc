#include "netlink.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <system_error>

#include "sock/error.h"

namespace testbed {
namespace {

// Everything in a netlink message begins at a multiple of four bytes.
constexpr std::size_t kHeader = sizeof(nlmsghdr), kAttributeHeader = sizeof(nlattr);
constexpr std::size_t aligned(std::size_t size) { return (size + 3) / 4 * 4; }

}  // namespace

void Request::append(const void* data, std::size_t size) {
  const std::size_t at = bytes_.size();
  bytes_.resize(at + aligned(size));
  std::memcpy(bytes_.data() + at, data, size);
}

void Request::attribute(std::uint16_t type, const void* data, std::size_t size) {
  const nlattr header{static_cast<std::uint16_t>(kAttributeHeader + size), type};
  append(&header, sizeof(header));
  append(data, size);
}

void Request::attribute(std::uint16_t type, std::string_view text) {
  std::vector<char> terminated(text.begin(), text.end());
  terminated.push_back('\0');
  attribute(type, terminated.data(), terminated.size());
}

void Request::nested(std::uint16_t type, const std::function<void()>& fill) {
  const std::size_t start = bytes_.size();
  const nlattr placeholder{0, type};
  append(&placeholder, sizeof(placeholder));
  fill();
  const nlattr header{static_cast<std::uint16_t>(bytes_.size() - start), type};
  std::memcpy(bytes_.data() + start, &header, sizeof(header));
}

std::span<const std::byte> Request::finish(std::uint32_t sequence) {
  nlmsghdr header{};
  std::memcpy(&header, bytes_.data(), sizeof(header));
  header.nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
  header.nlmsg_seq = sequence;
  std::memcpy(bytes_.data(), &header, sizeof(header));
  return bytes_;
}

void for_each_attribute(
    const nlmsghdr& header, std::size_t body_size,
    const std::function<void(std::uint16_t, std::span<const std::byte>)>& each) {
  const std::span<const std::byte> message(reinterpret_cast<const std::byte*>(&header),
                                           header.nlmsg_len);
  std::size_t at = kHeader + aligned(body_size);
  while (at + kAttributeHeader <= message.size()) {
    nlattr attribute{};
    std::memcpy(&attribute, message.data() + at, sizeof(attribute));
    if (attribute.nla_len < kAttributeHeader || at + attribute.nla_len > message.size()) return;
    each(attribute.nla_type,
         message.subspan(at + kAttributeHeader, attribute.nla_len - kAttributeHeader));
    at += aligned(attribute.nla_len);
  }
}

Netlink::Netlink(int protocol)
    : socket_(
          sock::check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "socket(AF_NETLINK)")
              .value()) {}

void Netlink::call(Request& request, const char* what) {
  const int error = query(request, [](const nlmsghdr&) {});
  if (error != 0) throw std::system_error(error, std::system_category(), what);
}

int Netlink::query(Request& request, const std::function<void(const nlmsghdr&)>& each) {
  const std::span<const std::byte> message = request.finish(++sequence_);
  (void)sock::check(::send(socket_.get(), message.data(), message.size(), 0), "send(netlink)")
      .value();
  alignas(nlmsghdr) static thread_local std::array<char, 65536> buffer;
  while (true) {
    const ssize_t size =
        sock::check(::recv(socket_.get(), buffer.data(), buffer.size(), 0), "recv(netlink)")
            .value();
    auto left = static_cast<std::uint32_t>(size);
    const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data());
    // NLMSG_NEXT of netlink(3), without its casts.
    const auto after = [](const nlmsghdr* entry) {
      const auto* bytes = reinterpret_cast<const std::byte*>(entry);
      const void* next = bytes + NLMSG_ALIGN(entry->nlmsg_len);
      return static_cast<const nlmsghdr*>(next);
    };
    for (; NLMSG_OK(header, left);
         left -= std::min(left, NLMSG_ALIGN(header->nlmsg_len)), header = after(header)) {
      if (header->nlmsg_seq != sequence_) continue;
      if (header->nlmsg_type == NLMSG_DONE) return 0;
      if (header->nlmsg_type == NLMSG_ERROR) {
        return -body_of<nlmsgerr>(*header).error;
      }
      each(*header);
      // A look-up without NLM_F_DUMP is answered by one message and, without NLM_F_ACK, no more.
      if ((header->nlmsg_flags & NLM_F_MULTI) == 0) return 0;
    }
  }
}

}  // namespace testbed
