// One client after the other. Nobody is kept waiting for long: after its greeting a client has a
// second to end, and is closed then.
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
#include <time.h>
#include <unistd.h>

enum { kPatienceMs = 1000 };

static int stop_pipe[2];

static void on_terminate(int signal_number) {
  (void)signal_number;
  close(stop_pipe[1]);
}

static void fail(const char *call) {
  fprintf(stderr, "greeting_server: %s: %s\n", call, strerror(errno));
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
    fprintf(stderr, "greeting_server: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  const char *call = "socket";
  int reason = 0;
  for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
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
static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// What the client says is read and dropped until its end, or closing would send RST.
static void drain(int fd) {
  long long deadline = now_ms() + kPatienceMs;
  char dropped[4096];
  for (long long left; (left = deadline - now_ms()) > 0;) {
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, (int)left) <= 0) continue;
    ssize_t got = recv(fd, dropped, sizeof dropped, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

static void greet(int fd) {
  static const char greeting[] = {'h', 'e', 'l', 'l', 'o', ' ', 'c', 'l', 'i', 'e', 'n', 't'};
  for (size_t sent = 0; sent < sizeof greeting;) {
    ssize_t taken = send(fd, greeting + sent, sizeof greeting - sent, MSG_NOSIGNAL);
    if (taken < 0 && errno == EINTR) continue;
    if (taken < 0) return;
    sent += (size_t)taken;
  }
  shutdown(fd, SHUT_WR);
  drain(fd);
}

static void print_peer(const struct sockaddr *peer, socklen_t size) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(peer, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) == 0)
    dprintf(STDOUT_FILENO, "connected from: %s:%s\n", host, port);
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: greeting_server HOST PORT\n");
    return 2;
  }
  if (pipe(stop_pipe) < 0) fail("pipe");
  struct sigaction terminate = {.sa_handler = on_terminate, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGTERM, &terminate, NULL);

  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready[2] = {{listener, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) continue;
    if (ready[1].revents != 0) return 0;
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int fd = accept(listener, (struct sockaddr *)&peer, &size);
    if (fd >= 0) {
      print_peer((struct sockaddr *)&peer, size);
      greet(fd);
      close(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      poll(&ready[1], 1, kPatienceMs);
    } else if (errno != EINTR && errno != EAGAIN) {
      fail("accept");
    }
  }
}
