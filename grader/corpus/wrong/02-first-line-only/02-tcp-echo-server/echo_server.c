/* Bug: when several lines have arrived together, only the first goes back. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *call) {
  fprintf(stderr, "echo_server: %s: %s\n", call, strerror(errno));
  exit(1);
}

/* 7, 65535 and "echo" are ports; 70000, 80x and -1 are not. */
static int is_port(const char *text) {
  char *end;
  long number = strtol(text, &end, 10);
  if (end == text) return isalpha((unsigned char)text[0]);
  return isdigit((unsigned char)text[0]) && *end == '\0' && number <= 65535;
}

static int listen_on(const char *host, const char *port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int status = getaddrinfo(host, port, &hints, &found);
  if (status != 0) {
    fprintf(stderr, "echo_server: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) < 0) die("bind");
  if (listen(fd, SOMAXCONN) < 0) die("listen");
  freeaddrinfo(found);
  return fd;
}

static void serve(int fd) {
  char buffer[4096];
  for (;;) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    char *end = memchr(buffer, '\n', n);
    if (end != NULL) n = end + 1 - buffer; /* this is the line */
    for (ssize_t sent = 0; sent < n;) {
      ssize_t m = send(fd, buffer + sent, n - sent, MSG_NOSIGNAL);
      if (m < 0 && errno != EINTR) return;
      if (m > 0) sent += m;
    }
  }
}

static void reap(int signal_number) {
  int saved = errno;
  (void)signal_number;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
  errno = saved;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART};
  sigaction(SIGCHLD, &action, NULL);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE) sleep(1);
      continue;
    }
    if (fork() == 0) {
      close(listener);
      serve(fd);
      close(fd);
      _exit(0);
    }
    close(fd);
  }
}
