/* Bug: takes the address at offset 4 in both families; in a sockaddr_in6 the flow label lies
   there. */
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

/* In memory a socket address is: family (2 bytes), port (2 bytes), address. */
static void print_sockaddr(const char *family, const void *address, size_t address_size) {
  const unsigned char *bytes = address;
  printf("%s %02x%02x ", family, bytes[2], bytes[3]);
  for (size_t i = 0; i < address_size; i++) printf("%02x", bytes[4 + i]);
  printf("\n");
}

int main(int argc, char **argv) {
  if (argc != 3) usage();
  in_port_t port = parse_port(argv[2]);

  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
  if (inet_pton(AF_INET, argv[1], &in.sin_addr) == 1) {
    print_sockaddr("inet", &in, sizeof in.sin_addr);
  } else if (inet_pton(AF_INET6, argv[1], &in6.sin6_addr) == 1) {
    print_sockaddr("inet6", &in6, sizeof in6.sin6_addr);
  } else {
    usage();
  }
  return 0;
}
