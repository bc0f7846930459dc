// getaddrinfo, then inet_ntop and ntohs by family; an address seen before is not printed again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
static int is_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && text[digits] == '\0' && strtoul(text, NULL, 10) <= 65535;
}
static int seen_before(const struct addrinfo *list, const struct addrinfo *entry) {
  for (const struct addrinfo *a = list; a != entry; a = a->ai_next)
    if (a->ai_addrlen == entry->ai_addrlen &&
        memcmp(a->ai_addr, entry->ai_addr, entry->ai_addrlen) == 0)
      return 1;
  return 0;
}

static void print(const struct sockaddr *address) {
  char text[INET6_ADDRSTRLEN];
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *inet = (const void *)address;
    inet_ntop(AF_INET, &inet->sin_addr, text, sizeof text);
    printf("inet %s %u\n", text, (unsigned)ntohs(inet->sin_port));
  } else {
    const struct sockaddr_in6 *inet6 = (const void *)address;
    inet_ntop(AF_INET6, &inet6->sin6_addr, text, sizeof text);
    printf("inet6 %s %u\n", text, (unsigned)ntohs(inet6->sin6_port));
  }
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: resolve HOST SERVICE\n");
    return 2;
  }
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int status = getaddrinfo(argv[1], argv[2], &hints, &list);
  if (status != 0) {
    const char *reason = status == EAI_SYSTEM ? strerror(errno) : gai_strerror(status);
    fprintf(stderr, "resolve: getaddrinfo: %s\n", reason);
    return 1;
  }
  for (const struct addrinfo *a = list; a != NULL; a = a->ai_next)
    if (!seen_before(list, a)) print(a->ai_addr);
  freeaddrinfo(list);
  return 0;
}
