// One child per client; the bytes go from the socket through a pipe and back (splice) and never
// enter the process.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kPiece = 65536 };
static const struct timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

static pid_t *children;
static size_t child_count, child_room;

static volatile sig_atomic_t stopping, child_ended;

static void on_signal(int signal_number) {
  if (signal_number == SIGTERM) stopping = 1;
  if (signal_number == SIGCHLD) child_ended = 1;
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
static int remember(pid_t pid) {
  if (child_count == child_room) {
    size_t room = child_room == 0 ? 64 : child_room * 2;
    pid_t *more = realloc(children, room * sizeof *more);
    if (more == NULL) return -1;
    children = more;
    child_room = room;
  }
  children[child_count++] = pid;
  return 0;
}

static void reap(void) {
  pid_t pid;
  child_ended = 0;
  while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
    for (size_t i = 0; i < child_count; ++i)
      if (children[i] == pid) {
        children[i] = children[--child_count];
        break;
      }
}

// Moves what has arrived; 0 at the end of the connection, -1 when it broke.
static ssize_t echo_once(int connection, const int *tube) {
  ssize_t in = splice(connection, NULL, tube[1], NULL, kPiece, SPLICE_F_MOVE);
  if (in < 0 && errno == EINTR) return 1;
  for (ssize_t owed = in; owed > 0;) {
    ssize_t out = splice(tube[0], NULL, connection, NULL, (size_t)owed, SPLICE_F_MOVE);
    if (out < 0 && errno == EINTR) continue;
    if (out <= 0) return -1;
    owed -= out;
  }
  return in;
}

// SIGTERM reaches the child inside ppoll only. After it, a client that stays silent for the grace
// period is owed nothing.
static void serve(int connection, const sigset_t *unblocked) {
  int tube[2];
  if (pipe(tube) < 0) fail("pipe");
  struct pollfd ready = {connection, POLLIN, 0};
  for (;;) {
    int count = ppoll(&ready, 1, stopping ? &kGrace : NULL, unblocked);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || echo_once(connection, tube) <= 0) return;
  }
}

static void start_child(int listener, int connection, const sigset_t *unblocked) {
  pid_t pid;
  while ((pid = fork()) < 0 && !stopping) {
    ppoll(NULL, 0, &kRetry, unblocked);
    reap();
  }
  if (pid == 0) {
    close(listener);
    signal(SIGCHLD, SIG_DFL);
    serve(connection, unblocked);
    close(connection);
    _exit(0);
  }
  if (pid > 0 && remember(pid) < 0) fail("realloc");
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  sigset_t blocked, unblocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGCHLD, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  signal(SIGPIPE, SIG_IGN);  // splice has no MSG_NOSIGNAL

  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready = {listener, POLLIN, 0};
  while (!stopping) {
    int count = ppoll(&ready, 1, NULL, &unblocked);
    if (child_ended) reap();
    if (count <= 0) continue;
    int connection = accept(listener, NULL, NULL);
    if (connection >= 0) {
      start_child(listener, connection, &unblocked);
      close(connection);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      ppoll(NULL, 0, &kRetry, &unblocked);
    }
  }
  close(listener);
  for (size_t i = 0; i < child_count; ++i) kill(children[i], SIGTERM);
  for (;;) {
    reap();
    if (child_count == 0) break;
    sigsuspend(&unblocked);
  }
  free(children);
  return 0;
}
