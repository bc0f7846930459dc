// One child per client. The parent keeps only the listener, each child only its connection.
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
#include <sys/wait.h>
#include <unistd.h>

enum { kBuffer = 16384, kGraceMs = 500, kRetrySeconds = 1 };

static volatile sig_atomic_t stopping;
static volatile sig_atomic_t children;

// Signals of the same kind are merged while one is pending, so one SIGCHLD may stand for many.
static void on_child(int signal_number) {
  (void)signal_number;
  int saved = errno;
  while (waitpid(-1, NULL, WNOHANG) > 0) --children;
  errno = saved;
}

static void on_terminate(int signal_number) {
  (void)signal_number;
  stopping = 1;
}

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

// `lifeline` is a pipe nobody writes to: it ends when the parent stops or dies. From then on a
// client that stays silent for the grace period is owed nothing.
static void serve(int connection, int lifeline) {
  char buffer[kBuffer];
  struct pollfd ready[2] = {{connection, POLLIN, 0}, {lifeline, POLLIN, 0}};
  int parent_runs = 1;
  for (;;) {
    int count = parent_runs ? poll(ready, 2, -1) : poll(ready, 1, kGraceMs);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    if (parent_runs && ready[1].revents != 0) parent_runs = 0;
    if (ready[0].revents == 0) continue;
    ssize_t got = recv(connection, buffer, sizeof buffer, 0);
    if (got <= 0 || send_all(connection, buffer, (size_t)got) < 0) return;
  }
}

// Waits for a signal, at most a second: a child that ends gives back what we ran short of.
static void wait_for_room(const sigset_t *unblocked) {
  struct timespec retry = {.tv_sec = kRetrySeconds};
  ppoll(NULL, 0, &retry, unblocked);
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  // Both signals are delivered inside ppoll and sigsuspend only, so no flag can be missed.
  sigset_t blocked, unblocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  struct sigaction child = {.sa_handler = on_child}, terminate = {.sa_handler = on_terminate};
  sigaction(SIGCHLD, &child, NULL);
  sigaction(SIGTERM, &terminate, NULL);

  int listener = listen_on(argv[1], argv[2]);
  int lifeline[2];
  if (pipe(lifeline) < 0) fail("pipe");
  struct pollfd ready = {listener, POLLIN, 0};
  while (!stopping) {
    if (ppoll(&ready, 1, NULL, &unblocked) < 0) continue;
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        wait_for_room(&unblocked);
      continue;
    }
    pid_t pid;
    while ((pid = fork()) < 0 && !stopping) wait_for_room(&unblocked);
    if (pid == 0) {
      close(listener);
      close(lifeline[1]);
      sigprocmask(SIG_SETMASK, &unblocked, NULL);
      serve(connection, lifeline[0]);
      close(connection);
      _exit(0);
    }
    if (pid > 0) ++children;
    close(connection);
  }
  close(listener);
  close(lifeline[1]);
  while (children > 0) sigsuspend(&unblocked);
  return 0;
}
