// Like a super-server: each client gets a new process that executes this same program again in
// another role. Only what it needs crosses execve(2): all other descriptors are close-on-exec.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kBuffer = 65536, kGraceMs = 500, kRetryMs = 1000 };
static const char kClientRole[] = "echo_server: one client";

static void fail(const char *call) {
  fprintf(stderr, "echo_server: %s: %s\n", call, strerror(errno));
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
    fprintf(stderr, "echo_server: getaddrinfo: %s\n", gai_strerror(status));
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
static int send_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return -1;
    data += sent;
    size -= (size_t)sent;
  }
  return 0;
}

// The client's role: CONNECTION and LIFELINE are numbers of inherited descriptors. The second is
// a pipe that ends with the server; a client that is silent from then on is owed nothing.
static int serve(int connection, int lifeline) {
  static char buffer[kBuffer];
  struct pollfd ready[2] = {{connection, POLLIN, 0}, {lifeline, POLLIN, 0}};
  for (;;) {
    int count = poll(ready, 2, ready[1].fd < 0 ? kGraceMs : -1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return 0;
    if (ready[1].revents != 0) ready[1].fd = -1;
    if (ready[0].revents == 0) continue;
    ssize_t got = recv(connection, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || send_all(connection, buffer, (size_t)got) < 0) return 0;
  }
}

static int start(int connection, int lifeline) {
  char connection_text[12], lifeline_text[12];
  snprintf(connection_text, sizeof connection_text, "%d", connection);
  snprintf(lifeline_text, sizeof lifeline_text, "%d", lifeline);
  char role[sizeof kClientRole];
  memcpy(role, kClientRole, sizeof role);
  char *arguments[] = {role, connection_text, lifeline_text, NULL};
  // The connection was accepted without close-on-exec, and no other thread can fork meanwhile.
  pid_t pid;
  int error = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ);
  if (error == 0) return 1;
  fprintf(stderr, "echo_server: posix_spawn: %s\n", strerror(error));
  return 0;
}

static int accept_one(int listener, int signals) {
  int connection = accept(listener, NULL, NULL);
  if (connection < 0 &&
      (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
    struct pollfd signal = {signals, POLLIN, 0};
    poll(&signal, 1, kRetryMs);
  }
  return connection;
}

// Returns whether SIGTERM came.
static int read_signals(int signals, int *children) {
  struct signalfd_siginfo info;
  int terminate = 0;
  while (read(signals, &info, sizeof info) == (ssize_t)sizeof info)
    if (info.ssi_signo == SIGTERM) terminate = 1;
  while (waitpid(-1, NULL, WNOHANG) > 0) --*children;
  return terminate;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[0], kClientRole) == 0) return serve(atoi(argv[1]), atoi(argv[2]));
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  sigaddset(&watched, SIGTERM);
  sigprocmask(SIG_BLOCK, &watched, NULL);
  int signals = signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals < 0) fail("signalfd");
  int lifeline[2];
  if (pipe(lifeline) < 0 || fcntl(lifeline[1], F_SETFD, FD_CLOEXEC) < 0) fail("pipe");

  int children = 0;
  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready[2] = {{listener, POLLIN, 0}, {signals, POLLIN, 0}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) continue;
    if (ready[1].revents != 0 && read_signals(signals, &children)) break;
    if (ready[0].revents == 0) continue;
    int connection = accept_one(listener, signals);
    if (connection < 0) continue;
    children += start(connection, lifeline[0]);
    close(connection);
  }
  close(listener);
  close(lifeline[1]);
  while (children > 0)
    if (poll(&ready[1], 1, -1) > 0) read_signals(signals, &children);
  return 0;
}
