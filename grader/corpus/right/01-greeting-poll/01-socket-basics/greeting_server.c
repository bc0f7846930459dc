// One thread and poll: a client is greeted when it is accepted and kept until it has ended too.
#define _GNU_SOURCE
#include <arpa/inet.h>
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

enum { kMostClients = 1000 };
static const struct timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

static volatile sig_atomic_t stopping;

static void on_terminate(int signal_number) {
  (void)signal_number;
  stopping = 1;
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
static void print_peer(const struct sockaddr_storage *peer) {
  char host[INET6_ADDRSTRLEN];
  const struct sockaddr_in *inet = (const void *)peer;
  const struct sockaddr_in6 *inet6 = (const void *)peer;
  int is_inet6 = peer->ss_family == AF_INET6;
  const void *address = is_inet6 ? (const void *)&inet6->sin6_addr : &inet->sin_addr;
  inet_ntop(peer->ss_family, address, host, sizeof host);
  printf("connected from: %s:%u\n", host,
         (unsigned)ntohs(is_inet6 ? inet6->sin6_port : inet->sin_port));
}

// Returns 0 if the client is gone already. Twelve bytes always fit into a new socket's buffer.
static int greet(int fd) {
  const char *left = "hello client";
  while (*left != '\0') {
    ssize_t sent = send(fd, left, strlen(left), MSG_NOSIGNAL);
    if (sent < 0) return 0;
    left += sent;
  }
  return shutdown(fd, SHUT_WR) == 0;
}

// What the client says is read and dropped, or closing would send RST. Returns 0 at its end.
static int drop_input(int fd) {
  char dropped[4096];
  ssize_t got = recv(fd, dropped, sizeof dropped, 0);
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

// Returns the descriptor of a greeted client, -1 for none, -2 when there is no room for one.
static int accept_and_greet(int listener) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0)
    return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? -2 : -1;
  print_peer(&peer);
  if (greet(fd)) return fd;
  close(fd);
  return -1;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: greeting_server HOST PORT\n");
    return 2;
  }
  sigset_t blocked, unblocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  struct sigaction terminate = {.sa_handler = on_terminate};
  sigaction(SIGTERM, &terminate, NULL);
  setvbuf(stdout, NULL, _IOLBF, 0);

  static struct pollfd polled[1 + kMostClients];
  nfds_t used = 1;
  int listener = listen_on(argv[1], argv[2]), accepting = 1;
  while (!stopping || used > 1) {
    polled[0] = (struct pollfd){accepting ? listener : -1, POLLIN, 0};
    const struct timespec *patience = stopping ? &kGrace : accepting ? NULL : &kRetry;
    int count = ppoll(polled, used, patience, &unblocked);
    if (count < 0 && errno != EINTR) fail("ppoll");
    if (stopping && listener >= 0) {
      close(listener);
      listener = -1;
    }
    if (count < 0) continue;
    accepting = 1;
    for (nfds_t i = used; i-- > 1;) {
      int over = polled[i].revents != 0 ? !drop_input(polled[i].fd) : stopping && count == 0;
      if (!over) continue;
      close(polled[i].fd);
      polled[i] = polled[--used];
    }
    if (polled[0].revents == 0 || listener < 0) continue;
    int fd = accept_and_greet(listener);
    if (fd == -2) accepting = 0;
    if (fd < 0) continue;
    // All have had their greeting: when there are too many, one of them need not be kept.
    if (used > kMostClients) close(polled[--used].fd);
    polled[used++] = (struct pollfd){fd, POLLIN, 0};
  }
  return 0;
}
