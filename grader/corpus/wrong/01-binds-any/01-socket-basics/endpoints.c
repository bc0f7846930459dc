/* Bug: binds to every address of the machine (INADDR_ANY), not to HOST. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void usage(void) {
  fprintf(stderr, "usage: endpoints HOST PORT\n");
  exit(2);
}

static void die(const char *call) {
  fprintf(stderr, "endpoints: %s: %s\n", call, strerror(errno));
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
    fprintf(stderr, "endpoints: getaddrinfo: %s\n", gai_strerror(error));
    exit(1);
  }
  if (ai->ai_family == AF_INET)
    ((struct sockaddr_in *)ai->ai_addr)->sin_addr.s_addr = htonl(INADDR_ANY);
  else
    ((struct sockaddr_in6 *)ai->ai_addr)->sin6_addr = in6addr_any;
  int listener = socket(ai->ai_family, SOCK_STREAM, 0);
  if (listener == -1) die("socket");
  int on = 1;
  if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1) die("setsockopt");
  if (bind(listener, ai->ai_addr, ai->ai_addrlen) == -1) die("bind");
  if (listen(listener, SOMAXCONN) == -1) die("listen");
  freeaddrinfo(ai);
  return listener;
}

static void print_address(const char *what, const struct sockaddr_storage *address) {
  char text[INET6_ADDRSTRLEN];
  in_port_t port;
  if (address->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const void *)address;
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
    port = in6->sin6_port;
  } else {
    const struct sockaddr_in *in = (const void *)address;
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    port = in->sin_port;
  }
  printf("%s %s %u\n", what, text, ntohs(port));
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc != 3 || !valid_port(argv[2])) usage();
  int listener = listen_at(argv[1], argv[2]);

  struct sockaddr_storage local = {0};
  socklen_t local_len = sizeof local;
  if (getsockname(listener, (struct sockaddr *)&local, &local_len) == -1) die("getsockname");
  print_address("listening", &local);

  struct sockaddr_storage peer = {0};
  socklen_t peer_len = sizeof peer;
  int client;
  do {
    client = accept(listener, (struct sockaddr *)&peer, &peer_len);
  } while (client == -1 && (errno == EINTR || errno == ECONNABORTED));
  if (client == -1) die("accept");
  local_len = sizeof local;
  if (getsockname(client, (struct sockaddr *)&local, &local_len) == -1) die("getsockname");
  print_address("local", &local);
  print_address("peer", &peer);

  char ignored[4096];
  ssize_t n;
  do {
    n = recv(client, ignored, sizeof ignored, 0);
  } while (n > 0 || (n == -1 && errno == EINTR));
  if (n == -1) die("recv");
  close(client);
  close(listener);
  return 0;
}
