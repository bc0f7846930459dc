// One child per client. The kernel reaps the children, as SIGCHLD is ignored (POSIX.1-2001).
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
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char kGreeting[] = "hello client";
enum { kMostDropped = 1 << 20, kPatienceSeconds = 2 };

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
// Closing with unread bytes would send RST and the greeting could be lost: they are read first,
// but no more than a limit, and nobody is waited for longer than a while.
static void drain(int fd) {
  struct timeval patience = {.tv_sec = kPatienceSeconds};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char dropped[4096];
  for (size_t total = 0; total < kMostDropped;) {
    ssize_t got = recv(fd, dropped, sizeof dropped, 0);
    if (got < 0 && errno == EINTR) continue;  // SIGCONT interrupts a recv with a time-out
    if (got <= 0) return;
    total += (size_t)got;
  }
}

static void greet(int fd) {
  size_t sent = 0;
  while (sent < strlen(kGreeting)) {
    ssize_t now = send(fd, kGreeting + sent, strlen(kGreeting) - sent, MSG_NOSIGNAL);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) return;
    sent += (size_t)now;
  }
  shutdown(fd, SHUT_WR);
  drain(fd);
}

static void print_peer(const struct sockaddr_storage *peer, socklen_t size) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo((const struct sockaddr *)peer, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return;
  printf("connected from: %s:%s\n", host, port);
  fflush(stdout);  // and so the child has nothing to print twice
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
  signal(SIGCHLD, SIG_IGN);

  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready = {listener, POLLIN, 0};
  while (!stopping) {
    if (ppoll(&ready, 1, NULL, &unblocked) < 0) continue;
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int fd = accept(listener, (struct sockaddr *)&peer, &size);
    if (fd < 0) {
      struct timespec retry = {.tv_sec = 1};
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        ppoll(NULL, 0, &retry, &unblocked);
      continue;
    }
    print_peer(&peer, size);
    pid_t pid = fork();
    if (pid == 0) {
      close(listener);
      greet(fd);
      close(fd);
      _exit(0);
    }
    if (pid < 0) fprintf(stderr, "greeting_server: fork: %s\n", strerror(errno));
    close(fd);
  }
  close(listener);
  while (wait(NULL) > 0 || errno == EINTR) continue;
  return 0;
}
