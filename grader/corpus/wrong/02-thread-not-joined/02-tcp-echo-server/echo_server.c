/* Bug: threads are neither joined nor detached, so the stack of each stays mapped. */
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

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t one_ended = PTHREAD_COND_INITIALIZER;
static unsigned long ended; /* clients served to their end */

static int send_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return 0;
    data += n;
    size -= n;
  }
  return 1;
}

static void *serve(void *argument) {
  int fd = (int)(intptr_t)argument;
  char buffer[4096];
  for (;;) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || !send_all(fd, buffer, n)) break;
  }
  close(fd);
  pthread_mutex_lock(&lock);
  ended++;
  pthread_cond_signal(&one_ended);
  pthread_mutex_unlock(&lock);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  for (;;) {
    pthread_mutex_lock(&lock);
    unsigned long before = ended;
    pthread_mutex_unlock(&lock);
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
        close(fd);
    } else if (errno == EMFILE || errno == ENFILE) {
      pthread_mutex_lock(&lock); /* no descriptor left: wait until a client gives one back */
      while (ended == before) pthread_cond_wait(&one_ended, &lock);
      pthread_mutex_unlock(&lock);
    }
  }
}
