// One thread and poll; a ring of bytes per client, filled with readv and emptied with one sendmsg
// of both its halves, so input goes on while output waits, as far as the ring has room.
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
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { kRing = 32768 };  // a power of two: positions wrap with a mask
static const struct timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

struct client {
  struct client *next;
  int fd;
  int input_ended;
  size_t in, out;  // counted from the beginning of the connection; in - out bytes are owed
  char ring[kRing];
};

static struct client *clients;
static struct pollfd *polled;
static size_t count, room;

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
// Describes `size` bytes of the ring from position `from` in one or two pieces.
static int pieces(struct client *client, size_t from, size_t size, struct iovec piece[2]) {
  size_t offset = from & (kRing - 1);
  size_t first = size < kRing - offset ? size : kRing - offset;
  piece[0] = (struct iovec){client->ring + offset, first};
  piece[1] = (struct iovec){client->ring, size - first};
  return piece[1].iov_len > 0 ? 2 : 1;
}

static int may_try_again(void) { return errno == EAGAIN || errno == EINTR; }

static int receive(struct client *client) {
  struct iovec piece[2];
  size_t space = kRing - (client->in - client->out);
  if (client->input_ended || space == 0) return 1;
  ssize_t got = readv(client->fd, piece, pieces(client, client->in, space, piece));
  if (got < 0) return may_try_again();
  if (got == 0) client->input_ended = 1;
  client->in += (size_t)got;
  return 1;
}

static int reply(struct client *client) {
  struct iovec piece[2];
  size_t owed = client->in - client->out;
  if (owed == 0) return !client->input_ended;
  struct msghdr message = {.msg_iov = piece};
  message.msg_iovlen = (size_t)pieces(client, client->out, owed, piece);
  ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL);
  if (sent < 0) return may_try_again();
  client->out += (size_t)sent;
  return client->in > client->out || !client->input_ended;
}

static short interest(const struct client *client) {
  size_t owed = client->in - client->out;
  short events = owed > 0 ? POLLOUT : 0;
  if (!client->input_ended && owed < kRing) events |= POLLIN;
  return events;
}

static int make_room(void) {
  size_t wanted = room == 0 ? 64 : room * 2;
  struct pollfd *more = realloc(polled, wanted * sizeof *more);
  if (more == NULL) return -1;
  polled = more;
  room = wanted;
  return 0;
}

// Returns -1 when there is no room for another client until one ends.
static int add_client(int listener) {
  if (count + 1 >= room && make_room() < 0) return -1;
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0)
    return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? -1 : 0;
  struct client *client = malloc(sizeof *client);
  if (client == NULL) {
    close(fd);
    return -1;
  }
  client->fd = fd;
  client->input_ended = 0;
  client->in = client->out = 0;
  client->next = clients;
  clients = client;
  ++count;
  return 0;
}

// polled[0] is the listener, the others stand in the order of the list.
static void ask(int listener) {
  struct pollfd *place = polled;
  *place++ = (struct pollfd){listener, POLLIN, 0};
  for (struct client *client = clients; client != NULL; client = client->next)
    *place++ = (struct pollfd){client->fd, interest(client), 0};
}

// Serves each client that is ready and frees those that ended; returns how many did.
static int serve_all(int silence_ends) {
  int ended = 0;
  struct pollfd *place = polled + 1;
  struct client **link = &clients;
  while (*link != NULL) {
    struct client *client = *link;
    short events = (place++)->revents;
    int alive = events == 0 || (receive(client) && reply(client));
    if (alive && !(silence_ends && client->in == client->out)) {
      link = &client->next;
      continue;
    }
    *link = client->next;
    close(client->fd);
    free(client);
    --count;
    ++ended;
  }
  return ended;
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

  if (make_room() < 0) fail("realloc");
  int listener = listen_on(argv[1], argv[2]);
  int accepting = 1;
  while (!stopping || clients != NULL) {
    ask(accepting ? listener : -1);
    const struct timespec *patience = stopping ? &kGrace : accepting ? NULL : &kRetry;
    int ready = ppoll(polled, count + 1, patience, &unblocked);
    if (ready < 0 && errno != EINTR) fail("ppoll");
    if (stopping && listener >= 0) {
      close(listener);
      listener = -1;
      accepting = 0;
      continue;
    }
    if (ready < 0) continue;
    int listener_ready = polled[0].revents != 0;
    int ended = serve_all(stopping && ready == 0);
    if (listener >= 0 && (ended > 0 || ready == 0)) accepting = 1;
    if (listener_ready && add_client(listener) < 0) accepting = 0;
  }
  free(polled);
  return 0;
}
