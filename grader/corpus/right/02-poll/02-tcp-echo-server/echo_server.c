// One thread, non-blocking sockets, poll.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBuffer = 16384 };
static const struct timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

struct client {
  size_t begin, end;  // buffer[begin, end) came in and is not sent back yet
  char buffer[kBuffer];
};

// polled[0] is the listener, polled[i] the connection of clients[i]. A negative descriptor is
// passed over by poll(2).
static struct pollfd *polled;
static struct client **clients;
static nfds_t used = 1, room = 0;

static volatile sig_atomic_t stopping;

static void on_terminate(int signal_number) {
  (void)signal_number;
  stopping = 1;
}

static void fail(const char *call) {
  fprintf(stderr, "echo_server: %s: %s\n", call, strerror(errno));
  exit(1);
}

// A port is a number up to 65535 or the name of a service (RFC 6335 section 5.1).
static int is_port(const char *text) {
  if (isalpha((unsigned char)text[0])) return 1;
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && text[digits] == '\0' && strtoul(text, NULL, 10) <= 65535;
}

// getaddrinfo, then socket, setsockopt, bind and listen on the first address that takes them all.
static int listen_on(const char *host, const char *port) {
  struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  struct addrinfo *list;
  int status = getaddrinfo(host, port, &hints, &list);
  if (status == EAI_SYSTEM) fail("getaddrinfo");
  if (status != 0) {
    fprintf(stderr, "echo_server: getaddrinfo: %s\n", gai_strerror(status));
    exit(1);
  }
  const char *call = "socket";
  int reason = 0;
  for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) {
      call = "socket";
      reason = errno;
      continue;
    }
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) {
      call = "setsockopt";
    } else if (bind(fd, a->ai_addr, a->ai_addrlen) < 0) {
      call = "bind";
    } else if (listen(fd, SOMAXCONN) < 0) {
      call = "listen";
    } else {
      freeaddrinfo(list);
      return fd;
    }
    reason = errno;
    close(fd);
  }
  freeaddrinfo(list);
  errno = reason;
  fail(call);
  return -1;
}
static int grow(void) {
  nfds_t wanted = room == 0 ? 64 : room * 2;
  struct pollfd *more_polled = realloc(polled, wanted * sizeof *polled);
  if (more_polled != NULL) polled = more_polled;
  struct client **more_clients = realloc(clients, wanted * sizeof *clients);
  if (more_clients != NULL) clients = more_clients;
  if (more_polled == NULL || more_clients == NULL) return -1;
  room = wanted;
  return 0;
}

// Returns -1 when there is no room for another client until one ends.
static int add_client(int listener) {
  if (used == room && grow() < 0) return -1;
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0)
    return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? -1 : 0;
  struct client *client = malloc(sizeof *client);
  if (client == NULL) {
    close(fd);
    return -1;
  }
  client->begin = client->end = 0;
  clients[used] = client;
  polled[used] = (struct pollfd){fd, POLLIN, 0};
  ++used;
  return 0;
}

// The last client moves into the place that became free.
static void remove_client(nfds_t i) {
  close(polled[i].fd);
  free(clients[i]);
  --used;
  polled[i] = polled[used];
  clients[i] = clients[used];
}

static int passes(ssize_t result) {
  return result > 0 || (result < 0 && (errno == EAGAIN || errno == EINTR));
}

// Returns 0 when the connection has ended, in order or not.
static int serve(struct pollfd *ready, struct client *client) {
  if (client->begin == client->end) {
    ssize_t got = recv(ready->fd, client->buffer, kBuffer, 0);
    if (got <= 0) return passes(got);
    client->begin = 0;
    client->end = (size_t)got;
  }
  ssize_t sent = send(ready->fd, client->buffer + client->begin, client->end - client->begin,
                      MSG_NOSIGNAL);
  if (sent < 0) {
    ready->events = POLLOUT;
    return passes(sent);
  }
  client->begin += (size_t)sent;
  // While something is owed nothing more is read: the client feels it as a closed window.
  ready->events = client->begin < client->end ? POLLOUT : POLLIN;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 3 || !is_port(argv[2])) {
    fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  sigset_t blocked, unblocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &unblocked);
  struct sigaction terminate = {.sa_handler = on_terminate};
  sigaction(SIGTERM, &terminate, NULL);

  int listener = listen_on(argv[1], argv[2]);
  if (grow() < 0) fail("realloc");
  polled[0] = (struct pollfd){listener, POLLIN, 0};
  while (used > 1 || !stopping) {
    const struct timespec *patience = stopping ? &kGrace : polled[0].fd < 0 ? &kRetry : NULL;
    int count = ppoll(polled, used, patience, &unblocked);
    if (count < 0 && errno != EINTR) fail("ppoll");
    if (stopping && listener >= 0) {
      close(listener);
      listener = polled[0].fd = -1;
    }
    if (count < 0) continue;
    int removed = 0;
    // From the last to the first: a place that is filled again was already looked at.
    for (nfds_t i = used; i-- > 1;) {
      int silent_to_the_end = stopping && count == 0 && polled[i].events == POLLIN;
      if (silent_to_the_end || (polled[i].revents != 0 && !serve(&polled[i], clients[i]))) {
        remove_client(i);
        removed = 1;
      }
    }
    if (polled[0].fd >= 0 && polled[0].revents != 0 && add_client(listener) < 0)
      polled[0].fd = -1;
    else if (count == 0 || removed)
      polled[0].fd = listener;
  }
  free(polled);
  free(clients);
  return 0;
}
