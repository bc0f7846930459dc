// greeting_client, right but for one thing: it takes one recv for the whole greeting.
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed(const char* call) {
  fprintf(stderr, "greeting_client: %s: %s\n", call, strerror(errno));
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: greeting_client HOST PORT\n");
    return 2;
  }
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo* list = NULL;
  int error = getaddrinfo(argv[1], argv[2], &hints, &list);
  if (error != 0) {
    fprintf(stderr, "greeting_client: getaddrinfo: %s\n", gai_strerror(error));
    return 1;
  }
  int fd = socket(list->ai_family, list->ai_socktype, 0);
  if (fd == -1) return failed("socket");
  if (connect(fd, list->ai_addr, list->ai_addrlen) == -1) return failed("connect");
  freeaddrinfo(list);
  char buffer[1024];
  ssize_t count = recv(fd, buffer, sizeof buffer, 0);
  if (count == -1) return failed("recv");
  fwrite(buffer, 1, (size_t)count, stdout);
  close(fd);
  return 0;
}
