// Four threads share one epoll. EPOLLONESHOT hands a ready client to exactly one of them; it is
// watched again only when that thread has done with it.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kThreads = 4, kBuffer = 16384, kTurns = 8, kGraceMs = 500 };
static const struct timespec kGrace = {.tv_nsec = kGraceMs * 1000 * 1000};
static const struct timespec kRetry = {.tv_sec = 1};

struct client {
  int fd;
  size_t begin, end;
  atomic_int owes;
  atomic_llong moved_at;  // milliseconds
  struct client *previous, *next;
  char buffer[kBuffer];
};

static int epoll, quit_event, end_event;
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct client *clients;  // guarded by list_lock, as is the closing of a client's socket

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
static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void watch(int operation, int fd, uint32_t events, void *who) {
  struct epoll_event event = {.events = events, .data.ptr = who};
  if (epoll_ctl(epoll, operation, fd, &event) < 0) fail("epoll_ctl");
}

static void post(int event) {
  uint64_t one = 1;
  (void)!write(event, &one, sizeof one);
}

static void add_to_list(struct client *client) {
  pthread_mutex_lock(&list_lock);
  client->previous = NULL;
  client->next = clients;
  if (clients) clients->previous = client;
  clients = client;
  pthread_mutex_unlock(&list_lock);
}

static void end(struct client *client) {
  pthread_mutex_lock(&list_lock);
  if (client->previous) client->previous->next = client->next;
  else clients = client->next;
  if (client->next) client->next->previous = client->previous;
  close(client->fd);
  pthread_mutex_unlock(&list_lock);
  free(client);
  post(end_event);
}

enum outcome { kMoved, kWaits, kEnded };

static enum outcome after(ssize_t result) {
  if (result > 0) return kMoved;
  return result < 0 && (errno == EAGAIN || errno == EINTR) ? kWaits : kEnded;
}

static enum outcome receive(struct client *client) {
  ssize_t got = recv(client->fd, client->buffer, kBuffer, 0);
  client->begin = 0;
  client->end = got > 0 ? (size_t)got : 0;
  return after(got);
}

static enum outcome reply(struct client *client) {
  size_t owed = client->end - client->begin;
  ssize_t sent = send(client->fd, client->buffer + client->begin, owed, MSG_NOSIGNAL);
  if (sent > 0) client->begin += (size_t)sent;
  return after(sent);
}

// The load of `owes` reads what the thread before stored last, and so sees all that it did.
static void serve(struct client *client) {
  client->moved_at = now_ms();
  enum outcome outcome = kMoved;
  int owes = client->owes;
  for (int turn = 0; turn < kTurns && outcome == kMoved; ++turn) {
    outcome = owes ? reply(client) : receive(client);
    owes = client->begin < client->end;
  }
  if (outcome == kEnded) {
    end(client);
    return;
  }
  client->owes = owes;
  // From here on another thread may own the client.
  watch(EPOLL_CTL_MOD, client->fd, (owes ? EPOLLOUT : EPOLLIN) | EPOLLONESHOT, client);
}

static void *work(void *unused) {
  for (;;) {
    struct epoll_event event;
    int count = epoll_wait(epoll, &event, 1, -1);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    if (count <= 0) continue;
    if (event.data.ptr == NULL) return unused;
    serve(event.data.ptr);
  }
}

static void begin(int fd) {
  struct client *client = calloc(1, sizeof *client);
  if (client == NULL) {
    close(fd);
    return;
  }
  client->fd = fd;
  client->moved_at = now_ms();
  add_to_list(client);
  watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT, client);
}

static void drain(int event) {
  uint64_t count;
  (void)!read(event, &count, sizeof count);
}

static void accept_until_told(int listener, const sigset_t *unblocked) {
  struct pollfd ready[2] = {{listener, POLLIN, 0}, {end_event, POLLIN, 0}};
  while (!stopping) {
    int accepting = ready[0].fd >= 0;
    int count = ppoll(ready, 2, accepting ? NULL : &kRetry, unblocked);
    if (count < 0) continue;
    if (ready[1].revents != 0) drain(end_event);
    if (!accepting) ready[0].fd = listener;  // a client ended, or it is time to try again
    if (ready[0].revents == 0) continue;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) begin(fd);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      ready[0].fd = -1;
  }
}

// Whoever is owed nothing and was silent for the grace period has ended: with its reading side
// shut, its next recv returns 0 and a thread closes it.
static int end_silent(void) {
  long long since = now_ms() - kGraceMs;
  pthread_mutex_lock(&list_lock);
  for (struct client *client = clients; client != NULL; client = client->next)
    if (!client->owes && client->moved_at <= since) shutdown(client->fd, SHUT_RD);
  int some_left = clients != NULL;
  pthread_mutex_unlock(&list_lock);
  return some_left;
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
  pthread_sigmask(SIG_BLOCK, &blocked, &unblocked);  // inherited by the threads: main gets it
  struct sigaction terminate = {.sa_handler = on_terminate};
  sigaction(SIGTERM, &terminate, NULL);

  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("epoll_create1");
  quit_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  end_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (quit_event < 0 || end_event < 0) fail("eventfd");
  watch(EPOLL_CTL_ADD, quit_event, EPOLLIN, NULL);
  int listener = listen_on(argv[1], argv[2]);
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    errno = pthread_create(&threads[i], NULL, work, NULL);
    if (errno != 0) fail("pthread_create");
  }
  accept_until_told(listener, &unblocked);
  close(listener);
  struct pollfd ended = {end_event, POLLIN, 0};
  while (end_silent())
    if (ppoll(&ended, 1, &kGrace, NULL) > 0) drain(end_event);
  post(quit_event);
  for (int i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  return 0;
}
