// Bug: answers go to stdout by fwrite() and are never flushed: into a pipe they go when stdio's
// buffer is full, or when the program ends.
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
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

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  int fd = connect_to(argv[1], argv[2]);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  char out[16384], in[16384];
  size_t start = 0, left = 0;  // read from stdin, not sent yet
  bool input = true;
  for (;;) {
    short wish = left > 0 ? POLLIN | POLLOUT : POLLIN;
    pollfd polls[2] = {{input && left == 0 ? 0 : -1, POLLIN, 0}, {fd, wish, 0}};
    if (poll(polls, 2, -1) < 0) {
      if (errno == EINTR) continue;
      die("poll");
    }
    if (polls[0].revents != 0) {
      ssize_t n = read(0, out, sizeof out);
      if (n < 0) die("read");
      if (n == 0) {
        input = false;
        shutdown(fd, SHUT_WR);
      }
      start = 0;
      left = n;
    }
    if (left > 0) {
      ssize_t n = send(fd, out + start, left, MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN && errno != EINTR) die("send");
      if (n > 0) {
        start += n;
        left -= n;
      }
    }
    if (polls[1].revents != 0) {
      ssize_t n = recv(fd, in, sizeof in, 0);
      if (n == 0) return 0;
      if (n < 0 && errno != EAGAIN && errno != EINTR) die("recv");
      if (n > 0) std::fwrite(in, 1, n, stdout);
    }
  }
}
