// Bug: everything is sent before anything is read; with full buffers both ends wait for ever.
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <netdb.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char* call) {
  std::fprintf(stderr, "echo_client: %s: %s\n", call, std::strerror(errno));
  std::exit(1);
}

// 7, 65535 and "echo" are ports; 70000, 80x and -1 are not.
static bool is_port(const std::string& text) {
  if (text.find_first_not_of("0123456789") == std::string::npos)
    return !text.empty() && text.size() <= 5 && std::stoi(text) <= 65535;
  return std::isalpha(static_cast<unsigned char>(text[0]));
}

static int connect_to(const char* host, const char* port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (int status = getaddrinfo(host, port, &hints, &found)) {
    std::fprintf(stderr, "echo_client: getaddrinfo: %s\n", gai_strerror(status));
    std::exit(1);
  }
  for (addrinfo* each = found; each != nullptr; each = each->ai_next) {
    int fd = socket(each->ai_family, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (connect(fd, each->ai_addr, each->ai_addrlen) == 0) {
      freeaddrinfo(found);
      return fd;
    }
    int reason = errno;
    close(fd);
    errno = reason;
  }
  die("connect");
  return -1;
}

static void write_all(const char* data, size_t size) {
  while (size > 0) {
    ssize_t n = write(1, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("write");
    data += n;
    size -= n;
  }
}

static void send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("send");
    data += n;
    size -= n;
  }
}

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  int fd = connect_to(argv[1], argv[2]);
  char buffer[16384];
  ssize_t n;
  while ((n = read(0, buffer, sizeof buffer)) > 0) send_all(fd, buffer, n);
  if (n < 0) die("read");
  shutdown(fd, SHUT_WR);
  for (;;) {
    n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("recv");
    if (n == 0) return 0;
    write_all(buffer, n);
  }
}
