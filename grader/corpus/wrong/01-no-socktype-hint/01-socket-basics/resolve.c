/* Bug: no socket type in the hints, so each address comes once for every kind of socket. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void usage(void) {
  fprintf(stderr, "usage: resolve HOST SERVICE\n");
  exit(2);
}

/* A service name, or a number from 0 to 65535. */
static int valid_service(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && digits <= 5 && text[digits] == '\0' && atoi(text) <= 65535;
}

static void print_address(const struct addrinfo *ai) {
  char text[INET6_ADDRSTRLEN];
  if (ai->ai_family == AF_INET) {
    const struct sockaddr_in *in = (const void *)ai->ai_addr;
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    printf("inet %s %u\n", text, ntohs(in->sin_port));
  } else {
    const struct sockaddr_in6 *in6 = (const void *)ai->ai_addr;
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
    printf("inet6 %s %u\n", text, ntohs(in6->sin6_port));
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || !valid_service(argv[2])) usage();

  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = AF_UNSPEC;
  struct addrinfo *list;
  int error = getaddrinfo(argv[1], argv[2], &hints, &list);
  if (error != 0) {
    fprintf(stderr, "resolve: getaddrinfo: %s\n", gai_strerror(error));
    return 1;
  }
  for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) print_address(ai);
  freeaddrinfo(list);
  return 0;
}
