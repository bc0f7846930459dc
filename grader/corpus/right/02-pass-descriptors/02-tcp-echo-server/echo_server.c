// One process accepts and hands each connection to one of three others as a descriptor in a
// message (unix(7), SCM_RIGHTS). A connection is closed where it is not needed any more at once.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWorkers = 3, kBuffer = 16384, kGraceMs = 500, kRetryMs = 1000 };

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
union control {
  struct cmsghdr header;
  char space[CMSG_SPACE(sizeof(int))];
};

static ssize_t pass(int channel, int fd) {
  char byte = 0;
  struct iovec piece = {&byte, 1};
  union control control = {0};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(channel, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// A descriptor, -1 when none came, -2 at the end of the channel.
static int take(int channel) {
  char byte;
  struct iovec piece = {&byte, 1};
  union control control;
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  ssize_t got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got == 0) return -2;
  struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header == NULL || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

struct client {
  size_t begin, end;
  char buffer[kBuffer];
};

// A worker: polled[0] is the channel, polled[i] the connection of clients[i].
static struct pollfd *polled;
static struct client **clients;
static nfds_t used = 1, room;

static void grow(void) {
  room = room == 0 ? 64 : room * 2;
  polled = realloc(polled, room * sizeof *polled);
  clients = realloc(clients, room * sizeof *clients);
  if (polled == NULL || clients == NULL) fail("realloc");
}

// A descriptor that cannot be installed is dropped by the kernel with its message, so a free
// place is made sure of first. Returns -1 when there is none.
static int has_room(int channel) {
  int place = dup(channel);
  if (place < 0) return -1;
  close(place);
  return 0;
}

static void add_client(int fd) {
  if (used == room) grow();
  struct client *client = calloc(1, sizeof *client);
  if (client == NULL) fail("calloc");
  clients[used] = client;
  polled[used++] = (struct pollfd){fd, POLLIN, 0};
}

static int passes(ssize_t result) {
  return result > 0 || (result < 0 && (errno == EAGAIN || errno == EINTR));
}

static int serve(struct pollfd *ready, struct client *client) {
  if (client->begin == client->end) {
    ssize_t got = recv(ready->fd, client->buffer, kBuffer, MSG_DONTWAIT);
    if (got <= 0) return passes(got);
    client->begin = 0;
    client->end = (size_t)got;
  }
  ssize_t sent = send(ready->fd, client->buffer + client->begin, client->end - client->begin,
                      MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && !passes(sent)) return 0;
  if (sent > 0) client->begin += (size_t)sent;
  ready->events = client->begin < client->end ? POLLOUT : POLLIN;
  return 1;
}

static void work(int channel) {
  grow();
  polled[0] = (struct pollfd){channel, POLLIN, 0};
  int open = 1;
  while (open || used > 1) {
    int full = open && polled[0].fd < 0;
    int count = poll(polled, used, !open ? kGraceMs : full ? kRetryMs : -1);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("poll");
    if (open) polled[0].fd = channel;
    for (nfds_t i = used; i-- > 1;) {
      int silent_to_the_end = !open && count == 0 && polled[i].events == POLLIN;
      if (!silent_to_the_end && (polled[i].revents == 0 || serve(&polled[i], clients[i]))) continue;
      close(polled[i].fd);
      free(clients[i]);
      --used;
      polled[i] = polled[used];
      clients[i] = clients[used];
    }
    if (polled[0].revents == 0 || !open) continue;
    if (has_room(channel) < 0) {
      polled[0].fd = -1;
      continue;
    }
    int fd = take(channel);
    if (fd >= 0) add_client(fd);
    if (fd == -2) {
      // The accepting process stops or is gone.
      close(channel);
      polled[0].fd = -1;
      open = 0;
    }
  }
}

static void start_workers(int *channels) {
  for (int i = 0; i < kWorkers; ++i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) fail("socketpair");
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
      // The others' channels must end with the parent, not with their siblings.
      for (int j = 0; j < i; ++j) close(channels[j]);
      close(pair[0]);
      work(pair[1]);
      _exit(0);
    }
    close(pair[1]);
    channels[i] = pair[0];
  }
}

// A worker that cannot take more says so by not reading; the connection waits, as it would have
// in the listener's queue.
static void hand_over(const int *channels, int fd, const sigset_t *unblocked) {
  static unsigned next;
  while (pass(channels[next++ % kWorkers], fd) < 0 && !stopping) {
    if (errno == EINTR || errno == EPIPE) continue;
    struct timespec retry = {.tv_sec = kRetryMs / 1000};
    ppoll(NULL, 0, &retry, unblocked);
  }
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

  int channels[kWorkers];
  start_workers(channels);
  int listener = listen_on(argv[1], argv[2]);
  struct pollfd ready = {listener, POLLIN, 0};
  while (!stopping) {
    if (ppoll(&ready, 1, NULL, &unblocked) < 0) continue;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
      hand_over(channels, fd, &unblocked);
      close(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      struct timespec retry = {.tv_sec = kRetryMs / 1000};
      ppoll(NULL, 0, &retry, &unblocked);
    }
  }
  close(listener);
  for (int i = 0; i < kWorkers; ++i) close(channels[i]);
  while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) continue;
  return 0;
}
