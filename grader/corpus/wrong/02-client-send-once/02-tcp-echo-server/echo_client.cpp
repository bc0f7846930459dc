// One thread sends while main receives, each with blocking calls.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

// Both threads may see the connection break: only the first one tells, and ends the program.
[[noreturn]] void fail(const char* call, int error = errno) {
  static std::mutex never_unlocked;
  never_unlocked.lock();
  std::fprintf(stderr, "echo_client: %s: %s\n", call, std::strerror(error));
  std::exit(1);
}

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
bool is_port(const std::string& text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty()) return false;
  if (std::all_of(text.begin(), text.end(), is_digit))
    return std::strtoul(text.c_str(), nullptr, 10) <= 65535;
  return (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z');
}

// getaddrinfo, then socket and connect for each address until one is connected.
int connect_to(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int status = ::getaddrinfo(host, port, &hints, &found); status != 0) {
    if (status == EAI_SYSTEM) fail("getaddrinfo");
    std::fprintf(stderr, "echo_client: getaddrinfo: %s\n", ::gai_strerror(status));
    std::exit(1);
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  const char* call = "";
  int reason = 0;
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    const int fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0 && ::connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
    reason = errno;
    call = fd < 0 ? "socket" : "connect";
    if (fd >= 0) ::close(fd);
  }
  fail(call, reason);
}
// Calls `write_some(data, size)` until all is written; `call` is its name.
template <typename WriteSome>
void write_all(const char* call, const char* data, std::size_t size, WriteSome write_some) {
  while (size > 0) {
    const ssize_t written = write_some(data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(call);
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

void send_input(int fd) {
  std::array<char, 32768> buffer;
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read");
    if (got == 0) break;
    if (::send(fd, buffer.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) < 0) fail("send");
  }
  // The end of the input, not of the conversation: what is on its way back must still come.
  if (::shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN) fail("shutdown");
}

void print_reply(int fd) {
  std::array<char, 32768> buffer;
  for (;;) {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("recv");
    if (got == 0) return;
    write_all("write", buffer.data(), static_cast<std::size_t>(got),
              [](const char* data, std::size_t size) {
                return ::write(STDOUT_FILENO, data, size);
              });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);  // for stdout
  const int fd = connect_to(argv[1], argv[2]);
  std::thread sender(send_input, fd);
  print_reply(fd);
  sender.join();
  ::close(fd);
  return 0;
}
