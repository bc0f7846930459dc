// Blocking calls: recv until 0, write until all is out.
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

static void fail(const char *call) {
  fprintf(stderr, "greeting_client: %s: %s\n", call, strerror(errno));
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
    fprintf(stderr, "greeting_client: getaddrinfo: %s\n", gai_strerror(status));
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
static void print(const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(STDOUT_FILENO, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write");
    data += written;
    size -= (size_t)written;
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: greeting_client HOST PORT\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);  // for stdout
  int fd = connect_to(argv[1], argv[2]);
  char buffer[4096];
  for (;;) {
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("recv");
    if (got == 0) break;
    print(buffer, (size_t)got);
  }
  close(fd);
  return 0;
}
