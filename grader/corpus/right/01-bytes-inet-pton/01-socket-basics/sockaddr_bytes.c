// inet_pton into the socket address, then its bytes by way of an array of unsigned char.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

// Network byte order; -1 if the text is neither a number up to 65535 nor a known service.
static int parse_port(const char *text) {
  size_t digits = strspn(text, "0123456789");
  if (digits > 0 && text[digits] == '\0') {
    unsigned long number = strtoul(text, NULL, 10);
    return number <= 65535 ? htons((uint16_t)number) : -1;
  }
  struct servent *service = isalpha((unsigned char)text[0]) ? getservbyname(text, "tcp") : NULL;
  return service != NULL ? service->s_port : -1;
}

static void print_hex(const void *memory, size_t size) {
  const unsigned char *bytes = memory;
  putchar(' ');
  for (size_t i = 0; i < size; ++i) printf("%02x", bytes[i]);
}

int main(int argc, char **argv) {
  struct sockaddr_in inet = {.sin_family = AF_INET};
  struct sockaddr_in6 inet6 = {.sin6_family = AF_INET6};
  int port = argc == 3 ? parse_port(argv[2]) : -1;
  inet.sin_port = inet6.sin6_port = (in_port_t)port;
  if (port >= 0 && inet_pton(AF_INET, argv[1], &inet.sin_addr) == 1) {
    printf("inet");
    print_hex(&inet.sin_port, sizeof inet.sin_port);
    print_hex(&inet.sin_addr, sizeof inet.sin_addr);
  } else if (port >= 0 && inet_pton(AF_INET6, argv[1], &inet6.sin6_addr) == 1) {
    printf("inet6");
    print_hex(&inet6.sin6_port, sizeof inet6.sin6_port);
    print_hex(&inet6.sin6_addr, sizeof inet6.sin6_addr);
  } else {
    fprintf(stderr, "usage: sockaddr_bytes ADDRESS PORT\n");
    return 2;
  }
  putchar('\n');
  return 0;
}
