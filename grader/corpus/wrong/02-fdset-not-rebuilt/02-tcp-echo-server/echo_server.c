/* Bug: select() takes out of the set what is not ready, and the loop that puts it back stops at
   the last ready client: those behind it are forgotten. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
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
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) < 0) die("bind");
  if (listen(fd, SOMAXCONN) < 0) die("listen");
  freeaddrinfo(found);
  return fd;
}

struct client {
  int fd; /* -1: a free place */
  size_t start, left;
  char data[4096];
};

static struct client clients[FD_SETSIZE];

static int try_again(void) { return errno == EAGAIN || errno == EINTR; }

/* Reads when nothing is owed, sends what is owed; 0 when the client has ended. */
static int step(struct client *client) {
  if (client->left == 0) {
    ssize_t n = recv(client->fd, client->data, sizeof client->data, 0);
    if (n == 0) return 0;
    if (n < 0) return try_again();
    client->start = 0;
    client->left = n;
  }
  ssize_t n = send(client->fd, client->data + client->start, client->left, MSG_NOSIGNAL);
  if (n < 0) return try_again();
  client->start += n;
  client->left -= n;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  fd_set readable, writable;
  FD_ZERO(&readable);
  int full = 0; /* no descriptor left: do not look at the listener */
  for (int i = 0; i < FD_SETSIZE; i++) clients[i].fd = -1;
  for (;;) {
    FD_ZERO(&writable);
    int highest = listener;
    if (full)
      FD_CLR(listener, &readable);
    else
      FD_SET(listener, &readable);
    for (int i = 0; i < FD_SETSIZE; i++) {
      int fd = clients[i].fd;
      if (fd >= 0 && clients[i].left > 0) FD_SET(fd, &writable);
      if (fd > highest) highest = fd;
    }
    int ready = select(highest + 1, &readable, &writable, NULL, NULL);
    if (ready < 0) {
      if (errno == EINTR) continue;
      die("select");
    }
    for (int i = 0; i < FD_SETSIZE; i++) {
      int fd = clients[i].fd;
      if (fd < 0) continue;
      int is_ready = FD_ISSET(fd, &readable) || FD_ISSET(fd, &writable);
      FD_CLR(fd, &readable);
      if (is_ready && !step(&clients[i])) {
        close(fd);
        clients[i].fd = -1;
        full = 0;
      } else if (clients[i].left == 0) {
        FD_SET(fd, &readable);
      }
      if (is_ready && --ready == 0) break;
    }
    if (FD_ISSET(listener, &readable)) {
      int fd = accept(listener, NULL, NULL);
      if (fd >= FD_SETSIZE) {
        close(fd);
      } else if (fd >= 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        int i = 0;
        while (clients[i].fd >= 0) i++;
        clients[i].fd = fd;
        clients[i].left = 0;
        FD_SET(fd, &readable);
      } else if (errno == EMFILE || errno == ENFILE) {
        full = 1;
      }
    }
  }
}
