// One child per client that answers through a FILE. The FILE owns a duplicate of the connection,
// so the last one of both descriptors must be closed before the client sees the end.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kBuffer = 4096, kGraceMs = 500, kRetryMs = 1000 };

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
// 1: something to read; 0: nothing more will come that is owed an answer.
static int next_input(int connection, int *parent) {
  for (;;) {
    struct pollfd ready[2] = {{connection, POLLIN, 0}, {*parent, POLLIN, 0}};
    int count = poll(ready, 2, *parent >= 0 ? -1 : kGraceMs);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return 0;
    if (ready[1].revents != 0) *parent = -1;  // it stops or is gone: clients get a last chance
    if (ready[0].revents != 0) return 1;
  }
}

static void serve(int connection, int parent) {
  char buffer[kBuffer];
  int copy = dup(connection);
  FILE *answer = copy < 0 ? NULL : fdopen(copy, "w");
  if (answer == NULL) fail("fdopen");
  while (next_input(connection, &parent)) {
    ssize_t got = read(connection, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; ++i) putc(buffer[i], answer);
    if (fflush(answer) == EOF) break;
  }
  fclose(answer);
  close(connection);
}

static pid_t start_child(int listener, int connection, const int *lifeline, int signals) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  close(listener);
  close(lifeline[1]);
  close(signals);
  serve(connection, lifeline[0]);
  exit(0);
}

static void begin(int listener, const int *lifeline, int signals, int *children) {
  int connection = accept(listener, NULL, NULL);
  if (connection < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      struct pollfd signal = {signals, POLLIN, 0};
      poll(&signal, 1, kRetryMs);
    }
    return;
  }
  if (start_child(listener, connection, lifeline, signals) > 0) ++*children;
  else fprintf(stderr, "echo_server: fork: %s\n", strerror(errno));
  close(connection);
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
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  sigaddset(&watched, SIGTERM);
  sigprocmask(SIG_BLOCK, &watched, NULL);
  signal(SIGPIPE, SIG_IGN);  // stdio writes with write(2), which knows no MSG_NOSIGNAL
  int signals = signalfd(-1, &watched, SFD_NONBLOCK);
  if (signals < 0) fail("signalfd");
  int lifeline[2];  // nobody writes to it: it ends with the parent
  if (pipe(lifeline) < 0) fail("pipe");

  int children = 0;
  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready[2] = {{listener, POLLIN, 0}, {signals, POLLIN, 0}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) continue;
    if (ready[1].revents != 0 && read_signals(signals, &children)) break;
    if (ready[0].revents != 0) begin(listener, lifeline, signals, &children);
  }
  close(listener);
  close(lifeline[1]);
  while (children > 0)
    if (poll(&ready[1], 1, -1) > 0) read_signals(signals, &children);
  return 0;
}
