// One thread and select. FD_SET ends at descriptor 1023, so the sets are bit arrays of our own
// that grow; the kernel reads as many bits as its first argument says (select(2), BUGS).
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBuffer = 8192, kWordBits = 8 * sizeof(unsigned long) };
static const struct timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

struct client {
  size_t begin, end;
  char buffer[kBuffer];
};

// select overwrites its sets with the answer, so the question is kept apart from it.
static unsigned long *ask_read, *ask_write, *can_read, *can_write;
static struct client **clients;  // by descriptor
static int room;                 // bits in a set, a multiple of kWordBits
static int highest = -1;

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
static void set(unsigned long *bits, int fd) { bits[fd / kWordBits] |= 1UL << (fd % kWordBits); }
static void clear(unsigned long *bits, int fd) {
  bits[fd / kWordBits] &= ~(1UL << (fd % kWordBits));
}
static int is_set(const unsigned long *bits, int fd) {
  return (bits[fd / kWordBits] >> (fd % kWordBits)) & 1;
}

static int resize(void *where, size_t old_size, size_t new_size) {
  void **array = where;
  char *bigger = realloc(*array, new_size);
  if (bigger == NULL) return -1;
  memset(bigger + old_size, 0, new_size - old_size);
  *array = bigger;
  return 0;
}

static int make_room(int fd) {
  if (fd < room) return 0;
  int wanted = (fd / 1024 + 1) * 1024;
  size_t from = (size_t)room / 8, to = (size_t)wanted / 8, pointer = sizeof *clients;
  if (resize(&ask_read, from, to) < 0 || resize(&ask_write, from, to) < 0 ||
      resize(&can_read, from, to) < 0 || resize(&can_write, from, to) < 0 ||
      resize(&clients, (size_t)room * pointer, (size_t)wanted * pointer) < 0)
    return -1;
  room = wanted;
  return 0;
}

// Returns -1 when there is no room for another client until one ends.
static int add_client(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0)
    return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? -1 : 0;
  struct client *client = make_room(fd) == 0 ? calloc(1, sizeof *client) : NULL;
  if (client == NULL) {
    close(fd);
    return -1;
  }
  clients[fd] = client;
  set(ask_read, fd);
  if (fd > highest) highest = fd;
  return 0;
}

static void remove_client(int fd) {
  clear(ask_read, fd);
  clear(ask_write, fd);
  free(clients[fd]);
  clients[fd] = NULL;
  close(fd);
  while (highest >= 0 && !is_set(ask_read, highest) && !is_set(ask_write, highest)) --highest;
}

static int passes(ssize_t result) {
  return result > 0 || (result < 0 && (errno == EAGAIN || errno == EINTR));
}

// Returns 0 when the connection has ended, in order or not.
static int serve(int fd) {
  struct client *client = clients[fd];
  if (client->begin == client->end) {
    ssize_t got = recv(fd, client->buffer, kBuffer, 0);
    if (got <= 0) return passes(got);
    client->begin = 0;
    client->end = (size_t)got;
  }
  ssize_t sent = send(fd, client->buffer + client->begin, client->end - client->begin,
                      MSG_NOSIGNAL);
  if (sent < 0 && !passes(sent)) return 0;
  if (sent > 0) client->begin += (size_t)sent;
  int owed = client->begin < client->end;
  clear(owed ? ask_read : ask_write, fd);
  set(owed ? ask_write : ask_read, fd);
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
  if (make_room(listener) < 0) fail("realloc");
  highest = listener;
  int accepting = 1;
  while (!stopping || highest >= 0) {
    if (accepting) set(ask_read, listener);
    if (accepting && listener > highest) highest = listener;
    size_t bytes = ((size_t)highest / kWordBits + 1) * sizeof(unsigned long);
    memcpy(can_read, ask_read, bytes);
    memcpy(can_write, ask_write, bytes);
    const struct timespec *patience = stopping ? &kGrace : accepting ? NULL : &kRetry;
    int count = pselect(highest + 1, (fd_set *)can_read, (fd_set *)can_write, NULL, patience,
                        &unblocked);
    if (count < 0 && errno != EINTR) fail("pselect");
    if (stopping && listener >= 0) {
      if (accepting) remove_client(listener);
      else close(listener);
      accepting = 0;
      listener = -1;
      continue;
    }
    if (count < 0) continue;
    if (count == 0 && listener >= 0) accepting = 1;
    for (int fd = highest; fd >= 0; --fd) {
      if (clients[fd] == NULL) continue;
      int silent_to_the_end = stopping && count == 0 && is_set(ask_read, fd);
      int ready = count > 0 && (is_set(can_read, fd) || is_set(can_write, fd));
      if (silent_to_the_end || (ready && !serve(fd))) {
        remove_client(fd);
        if (listener >= 0) accepting = 1;
      }
    }
    if (count > 0 && listener >= 0 && is_set(can_read, listener) && add_client(listener) < 0) {
      accepting = 0;
      clear(ask_read, listener);
    }
  }
  free(ask_read);
  free(ask_write);
  free(can_read);
  free(can_write);
  free(clients);
  return 0;
}
