/* Bug: the number of arguments is never looked at; with too few it reads a null pointer. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void usage(void) {
  fprintf(stderr, "usage: sockaddr_bytes ADDRESS PORT\n");
  exit(2);
}

static in_port_t parse_port(const char *text) {
  size_t digits = strspn(text, "0123456789");
  if (digits == 0 || digits > 5 || text[digits] != '\0') usage();
  int port = atoi(text);
  if (port > 65535) usage();
  return htons((in_port_t)port);
}

static void print_bytes(const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < size; i++) printf("%02x", bytes[i]);
}

int main(int argc, char **argv) {
  (void)argc;
  in_port_t port = parse_port(argv[2]);

  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
  if (inet_pton(AF_INET, argv[1], &in.sin_addr) == 1) {
    printf("inet ");
    print_bytes(&in.sin_port, sizeof in.sin_port);
    printf(" ");
    print_bytes(&in.sin_addr, sizeof in.sin_addr);
  } else if (inet_pton(AF_INET6, argv[1], &in6.sin6_addr) == 1) {
    printf("inet6 ");
    print_bytes(&in6.sin6_port, sizeof in6.sin6_port);
    printf(" ");
    print_bytes(&in6.sin6_addr, sizeof in6.sin6_addr);
  } else {
    usage();
  }
  printf("\n");
  return 0;
}
