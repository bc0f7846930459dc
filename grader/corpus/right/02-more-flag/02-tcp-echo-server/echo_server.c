// One thread per client. The reply is handed over in many small pieces, but MSG_MORE tells the
// kernel that more follows, so it leaves in full segments and not in one per call.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBuffer = 8192, kPiece = 16, kStack = 256 * 1024, kGraceMs = 500, kRetrySeconds = 1 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t one_ended = PTHREAD_COND_INITIALIZER;
static int running;       // threads that serve a client; guarded by lock
static int stop_pipe[2];  // ends when the program is told to stop

static void on_terminate(int signal_number) {
  (void)signal_number;
  close(stop_pipe[1]);
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
static int send_pieces(int fd, const char *data, size_t size) {
  while (size > 0) {
    size_t piece = size < kPiece ? size : kPiece;
    ssize_t sent = send(fd, data, piece, MSG_NOSIGNAL | (piece < size ? MSG_MORE : 0));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return -1;
    data += sent;
    size -= (size_t)sent;
  }
  return 0;
}

static void echo(int fd) {
  char buffer[kBuffer];
  struct pollfd ready[2] = {{fd, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
  int stopping = 0;
  for (;;) {
    // Told to stop: a client that stays silent for the grace period is owed nothing.
    int count = stopping ? poll(ready, 1, kGraceMs) : poll(ready, 2, -1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    if (!stopping && ready[1].revents != 0) stopping = 1;
    if (ready[0].revents == 0) continue;
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || send_pieces(fd, buffer, (size_t)got) < 0) return;
  }
}

static void *serve(void *argument) {
  int fd = (int)(intptr_t)argument;
  echo(fd);
  close(fd);
  pthread_mutex_lock(&lock);
  --running;
  pthread_cond_broadcast(&one_ended);
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void wait_for_room(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += kRetrySeconds;
  pthread_mutex_lock(&lock);
  for (int before = running; running >= before;)
    if (pthread_cond_timedwait(&one_ended, &lock, &until) != 0) break;
  pthread_mutex_unlock(&lock);
}

static void start(int fd, const pthread_attr_t *attributes) {
  pthread_t thread;
  pthread_mutex_lock(&lock);
  ++running;
  pthread_mutex_unlock(&lock);
  while ((errno = pthread_create(&thread, attributes, serve, (void *)(intptr_t)fd)) != 0) {
    fprintf(stderr, "echo_server: pthread_create: %s\n", strerror(errno));
    wait_for_room();
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (pipe(stop_pipe) < 0) fail("pipe");
  struct sigaction terminate = {.sa_handler = on_terminate, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGTERM, &terminate, NULL);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStack);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);

  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready[2] = {{listener, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) continue;
    if (ready[1].revents != 0) break;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) start(fd, &attributes);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      wait_for_room();
  }
  close(listener);
  pthread_mutex_lock(&lock);
  while (running > 0) pthread_cond_wait(&one_ended, &lock);
  pthread_mutex_unlock(&lock);
  return 0;
}
