/* Bug: sends sizeof greeting bytes, so the terminating NUL goes out too. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char greeting[] = "hello client";

static void usage(void) {
  fprintf(stderr, "usage: greeting_server HOST PORT\n");
  exit(2);
}

static void die(const char *call) {
  fprintf(stderr, "greeting_server: %s: %s\n", call, strerror(errno));
  exit(1);
}

/* A service name, or a number from 0 to 65535. */
static int valid_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && digits <= 5 && text[digits] == '\0' && atoi(text) <= 65535;
}

static int listen_at(const char *host, const char *port) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  struct addrinfo *ai;
  int error = getaddrinfo(host, port, &hints, &ai);
  if (error != 0) {
    fprintf(stderr, "greeting_server: getaddrinfo: %s\n", gai_strerror(error));
    exit(1);
  }
  int listener = socket(ai->ai_family, SOCK_STREAM, 0);
  if (listener == -1) die("socket");
  int on = 1;
  if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1) die("setsockopt");
  if (bind(listener, ai->ai_addr, ai->ai_addrlen) == -1) die("bind");
  if (listen(listener, SOMAXCONN) == -1) die("listen");
  freeaddrinfo(ai);
  return listener;
}

static void print_peer(const struct sockaddr_storage *peer) {
  char text[INET6_ADDRSTRLEN];
  in_port_t port;
  if (peer->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const void *)peer;
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
    port = in6->sin6_port;
  } else {
    const struct sockaddr_in *in = (const void *)peer;
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    port = in->sin_port;
  }
  printf("connected from: %s:%u\n", text, ntohs(port));
  fflush(stdout);
}

static void send_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1) return;
    data += n;
    size -= (size_t)n;
  }
}

/* Greets, then reads what the client still says: closing with unread bytes would send an RST. */
static void serve(int client) {
  send_all(client, greeting, sizeof greeting);
  shutdown(client, SHUT_WR);
  char ignored[4096];
  ssize_t n;
  do {
    n = recv(client, ignored, sizeof ignored, 0);
  } while (n > 0 || (n == -1 && errno == EINTR));
}

int main(int argc, char **argv) {
  if (argc != 3 || !valid_port(argv[2])) usage();
  signal(SIGCHLD, SIG_IGN); /* the kernel reaps the children */
  int listener = listen_at(argv[1], argv[2]);

  for (;;) {
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    int client = accept(listener, (struct sockaddr *)&peer, &peer_len);
    if (client == -1 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (client == -1) die("accept");
    print_peer(&peer);
    pid_t child = fork();
    if (child == -1) die("fork");
    if (child == 0) {
      close(listener);
      serve(client);
      exit(0);
    }
    close(client);
  }
}
