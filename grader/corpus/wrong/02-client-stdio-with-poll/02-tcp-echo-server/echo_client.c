/* Bug: getline() reads several lines at once into the buffer of stdin, poll() sees only what is
   still in the kernel: the other lines are not sent until more input comes. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *call) {
  fprintf(stderr, "echo_client: %s: %s\n", call, strerror(errno));
  exit(1);
}

/* 7, 65535 and "echo" are ports; 70000, 80x and -1 are not. */
static int is_port(const char *text) {
  char *end;
  long number = strtol(text, &end, 10);
  if (end == text) return isalpha((unsigned char)text[0]);
  return isdigit((unsigned char)text[0]) && *end == '\0' && number <= 65535;
}

static int connect_to(const char *host, const char *port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int status = getaddrinfo(host, port, &hints, &found);
  if (status != 0) {
    fprintf(stderr, "echo_client: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  int fd = -1;
  for (struct addrinfo *each = found; each != NULL; each = each->ai_next) {
    fd = socket(each->ai_family, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (connect(fd, each->ai_addr, each->ai_addrlen) == 0) break;
    if (each->ai_next == NULL) die("connect");
    close(fd);
  }
  freeaddrinfo(found);
  return fd;
}

static void write_all(const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(1, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("write");
    data += n;
    size -= n;
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  int fd = connect_to(argv[1], argv[2]);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  char in[16384];
  char *line = NULL; /* the last one read from stdin */
  size_t room = 0;
  size_t start = 0, left = 0; /* what of it is not sent yet */
  int input = 1;
  for (;;) {
    struct pollfd polls[2] = {{.fd = input && left == 0 ? 0 : -1, .events = POLLIN},
                              {.fd = fd, .events = left > 0 ? POLLIN | POLLOUT : POLLIN}};
    if (poll(polls, 2, -1) < 0) {
      if (errno == EINTR) continue;
      die("poll");
    }
    if (polls[0].revents != 0) {
      ssize_t n = getline(&line, &room, stdin);
      if (n < 0) {
        input = 0;
        shutdown(fd, SHUT_WR);
      }
      start = 0;
      left = n < 0 ? 0 : n;
    }
    if (left > 0) {
      ssize_t n = send(fd, line + start, left, MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN && errno != EINTR) die("send");
      if (n > 0) {
        start += n;
        left -= n;
      }
    }
    if (polls[1].revents != 0) {
      ssize_t n = recv(fd, in, sizeof in, 0);
      if (n == 0) return 0;
      if (n < 0 && errno != EAGAIN && errno != EINTR) die("recv");
      if (n > 0) write_all(in, n);
    }
  }
}
