// One call after the other, blocking; getsockname and getpeername tell the ends.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *call) {
  fprintf(stderr, "endpoints: %s: %s\n", call, strerror(errno));
  exit(1);
}

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
static int is_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && text[digits] == '\0' && strtoul(text, NULL, 10) <= 65535;
}

// getaddrinfo, then socket, setsockopt, bind and listen on the first address that takes them all.
static int listen_on(const char *host, const char *port) {
  struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int status = getaddrinfo(host, port, &hints, &list);
  if (status == EAI_SYSTEM) fail("getaddrinfo");
  if (status != 0) {
    fprintf(stderr, "endpoints: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  const char *call = "socket";
  int reason = 0;
  for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
    int fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
    if (fd < 0) {
      call = "socket";
      reason = errno;
      continue;
    }
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) {
      call = "setsockopt";
    } else if (bind(fd, a->ai_addr, a->ai_addrlen) < 0) {
      call = "bind";
    } else if (listen(fd, SOMAXCONN) < 0) {
      call = "listen";
    } else {
      freeaddrinfo(list);
      return fd;
    }
    reason = errno;
    close(fd);
  }
  freeaddrinfo(list);
  errno = reason;
  fail(call);
  return -1;
}
typedef int (*name_call)(int, struct sockaddr *, socklen_t *);

static void print_end(const char *what, int fd, name_call call, const char *call_name) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (call(fd, (struct sockaddr *)&address, &size) < 0) fail(call_name);
  int status = getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV);
  if (status != 0) {
    fprintf(stderr, "endpoints: getnameinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  printf("%s %s %s\n", what, host, port);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: endpoints HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  print_end("listening", listener, getsockname, "getsockname");
  int connection;
  while ((connection = accept(listener, NULL, NULL)) < 0)
    if (errno != EINTR && errno != ECONNABORTED) fail("accept");
  print_end("local", connection, getsockname, "getsockname");
  print_end("peer", connection, getpeername, "getpeername");
  char dropped[4096];
  ssize_t got;
  while ((got = recv(connection, dropped, sizeof dropped, 0)) != 0)
    if (got < 0 && errno != EINTR) fail("recv");
  close(connection);
  close(listener);
  return 0;
}
