/* An echo server and an echo client that are right, or wrong in the one way that $MODE names.
 * They are what the tests of the harness judge. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int is(const char* mode) {
  const char* wanted = getenv("MODE");
  return wanted != NULL && strcmp(wanted, mode) == 0;
}

static void fail(const char* call, const char* reason) {
  fprintf(stderr, "%s: %s: %s\n", getenv("PROGRAM"), call, reason);
  exit(1);
}

static void overflow(ssize_t count) {
  volatile size_t size = 4; /* so that only AddressSanitizer can know */
  volatile char* four = malloc(size);
  four[4 + count] = 'x';
  free((char*)four);
}

static void increment(volatile int number) { number = number + 1; }

static int send_all(int fd, const char* data, ssize_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, (size_t)size, MSG_NOSIGNAL);
    if (sent < 0) return -1;
    data += sent;
    size -= sent;
  }
  return 0;
}

static void misbehave(int fd, char* buffer, ssize_t count) {
  if (is("wrong")) buffer[count / 2] ^= 1;
  if (is("aborts")) abort();
  if (is("exits")) exit(3);
  if (is("overflows")) overflow(count);
  if (is("undefined")) increment(2147483646 + (count > 0));
  if (is("extra")) (void)send_all(fd, "more", 4);
  while (is("spins")) {
  }
}

static void* serve(void* argument) {
  const int fd = *(int*)argument;
  char buffer[4096];
  ssize_t count;
  free(argument);
  if (is("never-reads")) pause();
  while ((count = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    misbehave(fd, buffer, count);
    if (is("silent") || is("swallows")) continue;
    if (is("resets")) {
      const struct linger linger = {1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
      break;
    }
    if (is("closes") || send_all(fd, buffer, count) != 0) break;
    if (is("more-later")) (void)send_all(fd, "more", 4);
  }
  if (is("never-closes")) return NULL;
  close(fd);
  if (is("one-client")) exit(0);
  return NULL;
}

static struct addrinfo* look_up(const char* host, const char* port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
  const int error = getaddrinfo(host, port, &hints, &list);
  if (error != 0) fail("getaddrinfo", gai_strerror(error));
  return list;
}

static void spoil(struct sockaddr_in* address) {
  if (is("byte-order")) address->sin_port = ntohs(address->sin_port);
  if (is("other-port")) address->sin_port = htons(7777);
  if (is("loopback")) address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (is("any")) address->sin_addr.s_addr = htonl(INADDR_ANY);
}

static int server(const char* host, const char* port) {
  struct addrinfo* list = look_up(host, port);
  const int listener = socket(list->ai_family, SOCK_STREAM, 0), on = 1;
  spoil((struct sockaddr_in*)list->ai_addr);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, list->ai_addr, list->ai_addrlen) != 0 && !is("unchecked")) {
    fail("bind", strerror(errno));
  }
  if (is("early")) return 4;
  while (is("no-listen")) pause();
  if (listen(listener, is("backlog") ? 0 : 128) != 0) fail("listen", strerror(errno));
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    int* argument = malloc(sizeof *argument);
    pthread_t thread;
    *argument = fd;
    if (is("iterative")) {
      serve(argument);
    } else if (pthread_create(&thread, NULL, serve, argument) == 0) {
      pthread_detach(thread);
    }
  }
}

static int client(const char* host, const char* port) {
  struct addrinfo* list = look_up(host, port);
  const int fd = socket(list->ai_family, SOCK_STREAM, 0);
  char buffer[4096];
  ssize_t count;
  if (is("no-connect")) return 0;
  if (is("overflows")) overflow(1);
  if (is("undefined")) increment(2147483647);
  if (connect(fd, list->ai_addr, list->ai_addrlen) != 0) {
    fail("connect", is("success") ? "Success" : strerror(errno));
  }
  struct pollfd ready[] = {{fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) fail("poll", strerror(errno));
    if (ready[1].revents != 0) {
      count = read(STDIN_FILENO, buffer, sizeof buffer);
      if (count <= 0) ready[1].fd = -1;
      if (count <= 0 && !is("no-fin")) shutdown(fd, SHUT_WR);
      (void)send_all(fd, buffer, count);
    }
    if (ready[0].revents == 0) continue;
    count = recv(fd, buffer, sizeof buffer, 0);
    if (count < 0) fail("recv", strerror(errno));
    if (count == 0) break;
    if (!is("mute")) (void)!write(STDOUT_FILENO, buffer, (size_t)count);
  }
  return is("exit-status") ? 9 : 0;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s HOST PORT\n", getenv("PROGRAM"));
    return 2;
  }
  if (strcmp(getenv("PROGRAM"), "echo_client") == 0) return client(argv[1], argv[2]);
  return server(argv[1], argv[2]);
}
