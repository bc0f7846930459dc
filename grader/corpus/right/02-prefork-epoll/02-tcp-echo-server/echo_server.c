// Four processes accept from one listener; each serves its clients with level-triggered epoll.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kWorkers = 4, kBuffer = 16384, kEvents = 64, kGraceMs = 500, kRetryMs = 1000 };

struct client {
  int fd;
  uint32_t waits_for;  // EPOLLIN, or EPOLLOUT while buffer[begin, end) is owed
  size_t begin, end;
  struct client *previous, *next;
  char buffer[kBuffer];
};

struct worker {
  int epoll, listener, signals;
  int accepting, stopping;
  struct client *clients;
};

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
static void watch(const struct worker *worker, int operation, int fd, uint32_t events, void *who) {
  struct epoll_event event = {.events = events, .data.ptr = who};
  if (epoll_ctl(worker->epoll, operation, fd, &event) < 0) fail("epoll_ctl");
}

static void accept_again(struct worker *worker) {
  if (worker->accepting || worker->stopping) return;
  // EPOLLEXCLUSIVE: one new client wakes one worker, not all of them.
  watch(worker, EPOLL_CTL_ADD, worker->listener, EPOLLIN | EPOLLEXCLUSIVE, &worker->listener);
  worker->accepting = 1;
}

static void accept_not(struct worker *worker) {
  if (worker->accepting) watch(worker, EPOLL_CTL_DEL, worker->listener, 0, NULL);
  worker->accepting = 0;
}

static void end(struct worker *worker, struct client *client) {
  if (client->previous) client->previous->next = client->next;
  else worker->clients = client->next;
  if (client->next) client->next->previous = client->previous;
  close(client->fd);
  free(client);
  accept_again(worker);
}

static void begin(struct worker *worker) {
  int fd = accept4(worker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    // Out of descriptors: look away until a client ends, or epoll would report it for ever.
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      accept_not(worker);
    return;
  }
  struct client *client = malloc(sizeof *client);
  if (client == NULL) {
    close(fd);
    return;
  }
  client->fd = fd;
  client->waits_for = EPOLLIN;
  client->begin = client->end = 0;
  client->previous = NULL;
  client->next = worker->clients;
  if (client->next) client->next->previous = client;
  worker->clients = client;
  watch(worker, EPOLL_CTL_ADD, fd, EPOLLIN, client);
}

// One recv and one send at most, so that a busy client does not starve the others.
static int step(struct client *client) {
  if (client->begin == client->end) {
    ssize_t got = recv(client->fd, client->buffer, sizeof client->buffer, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    client->begin = 0;
    client->end = (size_t)got;
  }
  ssize_t sent = send(client->fd, client->buffer + client->begin, client->end - client->begin,
                      MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  client->begin += (size_t)sent;
  return 1;
}

static void serve(struct worker *worker, struct client *client) {
  if (!step(client)) {
    end(worker, client);
    return;
  }
  uint32_t wanted = client->begin == client->end ? EPOLLIN : EPOLLOUT;
  if (wanted == client->waits_for) return;
  client->waits_for = wanted;
  watch(worker, EPOLL_CTL_MOD, client->fd, wanted, client);
}

static void stop(struct worker *worker) {
  struct signalfd_siginfo info;
  (void)!read(worker->signals, &info, sizeof info);
  if (worker->stopping) return;
  accept_not(worker);
  close(worker->listener);
  worker->stopping = 1;
}

// Nobody sent anything during the grace period: whoever is owed nothing has ended.
static void end_silent(struct worker *worker) {
  struct client *next;
  for (struct client *client = worker->clients; client != NULL; client = next) {
    next = client->next;
    if (client->waits_for == EPOLLIN) end(worker, client);
  }
}

static void work(int listener, int signals) {
  struct worker worker = {.listener = listener, .signals = signals};
  worker.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (worker.epoll < 0) fail("epoll_create1");
  watch(&worker, EPOLL_CTL_ADD, signals, EPOLLIN, &worker.signals);
  accept_again(&worker);
  struct epoll_event events[kEvents];
  while (!worker.stopping || worker.clients != NULL) {
    int timeout = worker.stopping ? kGraceMs : worker.accepting ? -1 : kRetryMs;
    int count = epoll_wait(worker.epoll, events, kEvents, timeout);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    if (count == 0 && worker.stopping) end_silent(&worker);
    if (count == 0) accept_again(&worker);
    int told_to_stop = 0;
    for (int i = 0; i < count; ++i) {
      void *who = events[i].data.ptr;
      if (who == &worker.signals) told_to_stop = 1;
      else if (who == &worker.listener) begin(&worker);
      else serve(&worker, who);
    }
    if (told_to_stop) stop(&worker);
  }
}

static pid_t start_worker(int listener, const sigset_t *set) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid != 0) return pid;
  // When the parent is killed the workers stop too, so that the port becomes free.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);
  int signals = signalfd(-1, set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals < 0) fail("signalfd");
  work(listener, signals);
  _exit(0);
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
  sigset_t terminate, watched;
  sigemptyset(&terminate);
  sigaddset(&terminate, SIGTERM);
  watched = terminate;
  sigaddset(&watched, SIGCHLD);
  sigprocmask(SIG_BLOCK, &watched, NULL);

  int listener = listen_on(argv[1], argv[2]);
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i)
    if ((workers[i] = start_worker(listener, &terminate)) < 0) fail("fork");
  for (;;) {
    int signal_number = sigwaitinfo(&watched, NULL);
    if (signal_number == SIGTERM) break;
    if (signal_number != SIGCHLD) continue;
    pid_t ended;
    while ((ended = waitpid(-1, NULL, WNOHANG)) > 0)
      for (int i = 0; i < kWorkers; ++i)
        if (workers[i] == ended) workers[i] = start_worker(listener, &terminate);
  }
  close(listener);
  for (int i = 0; i < kWorkers; ++i)
    if (workers[i] > 0) kill(workers[i], SIGTERM);
  while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) continue;
  return 0;
}
