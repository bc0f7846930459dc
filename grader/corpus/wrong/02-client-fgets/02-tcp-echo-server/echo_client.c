/* Bug: input is read with fgets() and measured with strlen(): a zero byte hides the rest of
   its line. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdint.h>
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

/* Standard input to the server, line by line. */
static void *send_lines(void *argument) {
  int fd = (int)(intptr_t)argument;
  char line[4096];
  while (fgets(line, sizeof line, stdin) != NULL) {
    size_t size = strlen(line);
    for (size_t sent = 0; sent < size;) {
      ssize_t n = send(fd, line + sent, size - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return NULL; /* the other thread sees why */
      sent += n;
    }
  }
  shutdown(fd, SHUT_WR);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_client HOST PORT\n");
    return 2;
  }
  int fd = connect_to(argv[1], argv[2]);
  pthread_t sender;
  if (pthread_create(&sender, NULL, send_lines, (void *)(intptr_t)fd) != 0) die("pthread_create");
  char buffer[16384];
  for (;;) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("recv");
    if (n == 0) return 0;
    write_all(buffer, n);
  }
}
