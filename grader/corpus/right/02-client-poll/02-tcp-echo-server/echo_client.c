// One thread watches stdin and the socket with poll; what could not be sent yet is kept.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kBuffer = 16384 };

struct outgoing {
  int input_ended;
  size_t begin, end;  // bytes[begin, end) are still to be sent
  char bytes[kBuffer];
};

static void fail(const char *call) {
  fprintf(stderr, "echo_client: %s: %s\n", call, strerror(errno));
  exit(1);
}

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
static int is_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && text[digits] == '\0' && strtoul(text, NULL, 10) <= 65535;
}

// connect(2) goes on after a signal; asking again would report the attempt that is under way.
static int finish_connect(int fd) {
  struct pollfd ready = {fd, POLLOUT, 0};
  while (poll(&ready, 1, -1) < 0 && errno == EINTR) continue;
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return -1;
  errno = error;
  return error == 0 ? 0 : -1;
}

// getaddrinfo, then socket and connect for each address until one is connected.
static int connect_to(const char *host, const char *port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int status = getaddrinfo(host, port, &hints, &list);
  if (status == EAI_SYSTEM) fail("getaddrinfo");
  if (status != 0) {
    fprintf(stderr, "echo_client: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  const char *call = "socket";
  int fd = -1, reason = 0;
  for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
    call = "socket";
    fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0) {
      call = "connect";
      int result = connect(fd, a->ai_addr, a->ai_addrlen);
      if (result < 0 && errno == EINTR) result = finish_connect(fd);
      if (result == 0) break;
    }
    reason = errno;
    if (fd >= 0) close(fd);
    fd = -1;
  }
  freeaddrinfo(list);
  errno = reason;
  if (fd < 0) fail(call);
  return fd;
}
static void write_all(const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(STDOUT_FILENO, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write");
    data += written;
    size -= (size_t)written;
  }
}

static void read_input(struct outgoing *out, int fd) {
  ssize_t got = read(STDIN_FILENO, out->bytes, sizeof out->bytes);
  if (got < 0 && errno == EINTR) return;
  if (got < 0) fail("read");
  out->begin = 0;
  out->end = (size_t)got;
  if (got > 0) return;
  out->input_ended = 1;
  if (shutdown(fd, SHUT_WR) < 0) fail("shutdown");
}

static void send_some(struct outgoing *out, int fd) {
  ssize_t sent = send(fd, out->bytes + out->begin, out->end - out->begin,
                      MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) out->begin += (size_t)sent;
  else if (errno != EAGAIN && errno != EINTR) fail("send");
}

// Returns 0 at the peer's end.
static int print_some(int fd) {
  char bytes[kBuffer];
  ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != EINTR) fail("recv");
  if (got > 0) write_all(bytes, (size_t)got);
  return got != 0;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);  // for stdout
  int fd = connect_to(argv[1], argv[2]);
  struct outgoing out = {0};
  int peer_ended = 0;
  while (!out.input_ended || !peer_ended) {
    int owed = out.begin < out.end;
    short events = (short)((owed ? POLLOUT : 0) | (peer_ended ? 0 : POLLIN));
    struct pollfd ready[2] = {
        {out.input_ended || owed ? -1 : STDIN_FILENO, POLLIN, 0},
        {events != 0 ? fd : -1, events, 0},
    };
    if (poll(ready, 2, -1) < 0) {
      if (errno == EINTR) continue;
      fail("poll");
    }
    // The peer's reset is found by recv first, after what came before it.
    if (!peer_ended && ready[1].revents != 0 && !print_some(fd)) peer_ended = 1;
    if (owed && ready[1].revents != 0) send_some(&out, fd);
    if (ready[0].revents != 0) read_input(&out, fd);
  }
  close(fd);
  return 0;
}
