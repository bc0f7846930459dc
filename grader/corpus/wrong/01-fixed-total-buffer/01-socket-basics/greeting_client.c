/* Bug: keeps the whole answer in one array and stops when that is full. */
#define _POSIX_C_SOURCE 200809L
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *call, const char *reason) {
  fprintf(stderr, "greeting_client: %s: %s\n", call, reason);
  exit(1);
}

/* A service name, or a number from 0 to 65535. */
static int valid_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && digits <= 5 && text[digits] == '\0' && atoi(text) <= 65535;
}

static int connect_to(const char *host, const char *port) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int error = getaddrinfo(host, port, &hints, &list);
  if (error != 0) die("getaddrinfo", gai_strerror(error));

  int fd = -1;
  const char *call = "socket";
  for (struct addrinfo *ai = list; ai != NULL && fd == -1; ai = ai->ai_next) {
    call = "socket";
    fd = socket(ai->ai_family, ai->ai_socktype, 0);
    if (fd == -1) continue;
    call = "connect";
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) == -1) {
      int reason = errno;
      close(fd);
      errno = reason;
      fd = -1;
    }
  }
  if (fd == -1) die(call, strerror(errno));
  freeaddrinfo(list);
  return fd;
}

static void print_all(const char *data, size_t size) {
  if (fwrite(data, 1, size, stdout) != size || fflush(stdout) != 0)
    die("write", strerror(errno));
}

int main(int argc, char **argv) {
  if (argc != 3 || !valid_port(argv[2])) {
    fprintf(stderr, "usage: greeting_client HOST PORT\n");
    return 2;
  }
  int fd = connect_to(argv[1], argv[2]);
  static char answer[65536];
  size_t total = 0;
  while (total < sizeof answer) {
    ssize_t n = recv(fd, answer + total, sizeof answer - total, 0);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1) die("recv", strerror(errno));
    if (n == 0) break;
    print_all(answer + total, (size_t)n);
    total += (size_t)n;
  }
  close(fd);
  return 0;
}
