// Two processes share the socket: the child sends, the parent receives.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kBuffer = 16384 };

static void fail(const char *call) {
  fprintf(stderr, "echo_client: %s: %s\n", call, strerror(errno));
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
    fprintf(stderr, "echo_client: getaddrinfo: %s\n", gai_strerror(status));
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
// Returns -1 when it cannot.
static int write_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return -1;
    data += written;
    size -= (size_t)written;
  }
  return 0;
}

// Returns NULL at the end of `from`, or the name of the call that failed.
static const char *copy(int from, const char *in_call, int to, const char *out_call) {
  char buffer[kBuffer];
  for (;;) {
    ssize_t got = read(from, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return in_call;
    if (got == 0) return NULL;
    if (write_all(to, buffer, (size_t)got) < 0) return out_call;
  }
}

static const char kSend[] = "send";

// The child. When sending fails it only hands the reason to the parent, which may have seen the
// same end of the connection: one of them tells it.
static void send_input(int fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  const char *failed = copy(STDIN_FILENO, "read", fd, kSend);
  if (failed == kSend) _exit(errno);
  if (failed != NULL) fail(failed);
  // Both processes hold the socket: close(2) would send nothing, shutdown(2) sends the FIN.
  shutdown(fd, SHUT_WR);
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  int fd = connect_to(argv[1], argv[2]);
  pid_t parent = getpid(), child = fork();
  if (child < 0) fail("fork");
  if (child == 0) send_input(fd, parent);
  const char *failed = copy(fd, "recv", STDOUT_FILENO, "write");
  if (failed != NULL) fail(failed);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFEXITED(status)) return 1;
  errno = WEXITSTATUS(status);
  if (errno > 1) fail(kSend);
  return errno;
}
