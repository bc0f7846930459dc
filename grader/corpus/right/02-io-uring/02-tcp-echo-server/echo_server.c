// One thread and io_uring by its bare system calls. Each client has one request in flight, a recv
// or a send, so its memory is the kernel's until that request completes.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netdb.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kEntries = 256, kBuffer = 16384 };
static struct __kernel_timespec kGrace = {.tv_nsec = 500 * 1000 * 1000};
static struct __kernel_timespec kRetry = {.tv_sec = 1};

struct client {
  int fd;
  int owes;  // a send is in flight, not a recv
  size_t begin, end;
  struct client *previous, *next;
  char buffer[kBuffer];
};

struct ring {
  int fd;
  unsigned *submit_head, *submit_tail, *submit_array, submit_mask;
  unsigned *complete_head, *complete_tail, complete_mask;
  struct io_uring_sqe *requests;
  struct io_uring_cqe *completions;
  unsigned unsubmitted;
};

static struct ring ring;
static struct client *clients;
static int accepting;  // an accept is in flight
static const uint64_t kAcceptTag = 1, kCancelTag = 2;  // no client has such an address

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
static unsigned *at(char *base, uint32_t offset) { return (unsigned *)(void *)(base + offset); }

static char *map(size_t size, off_t offset) {
  void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
                       offset);
  if (address == MAP_FAILED) fail("mmap");
  return address;
}

static void make_ring(void) {
  struct io_uring_params p = {0};
  ring.fd = (int)syscall(SYS_io_uring_setup, kEntries, &p);
  if (ring.fd < 0) fail("io_uring_setup");
  char *submit = map(p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
  char *complete =
      map(p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
  ring.requests = (void *)map(p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
  ring.completions = (void *)(complete + p.cq_off.cqes);
  ring.submit_head = at(submit, p.sq_off.head);
  ring.submit_tail = at(submit, p.sq_off.tail);
  ring.submit_array = at(submit, p.sq_off.array);
  ring.submit_mask = *at(submit, p.sq_off.ring_mask);
  ring.complete_head = at(complete, p.cq_off.head);
  ring.complete_tail = at(complete, p.cq_off.tail);
  ring.complete_mask = *at(complete, p.cq_off.ring_mask);
}

static int enter(unsigned minimum, unsigned flags, void *argument, size_t size) {
  int result = (int)syscall(SYS_io_uring_enter, ring.fd, ring.unsubmitted, minimum, flags,
                            argument, size);
  // With a time-out or a signal the requests were taken all the same: the head tells.
  ring.unsubmitted = *ring.submit_tail - __atomic_load_n(ring.submit_head, __ATOMIC_ACQUIRE);
  return result;
}

static struct io_uring_sqe *new_request(uint8_t operation, int fd, uint64_t tag) {
  while (ring.unsubmitted == ring.submit_mask + 1) enter(0, 0, NULL, 0);
  unsigned tail = *ring.submit_tail, index = tail & ring.submit_mask;
  struct io_uring_sqe *request = &ring.requests[index];
  memset(request, 0, sizeof *request);
  request->opcode = operation;
  request->fd = fd;
  request->user_data = tag;
  ring.submit_array[index] = index;
  __atomic_store_n(ring.submit_tail, tail + 1, __ATOMIC_RELEASE);
  ++ring.unsubmitted;
  return request;
}

static void request_accept(int listener) {
  if (accepting || stopping) return;
  new_request(IORING_OP_ACCEPT, listener, kAcceptTag)->accept_flags = SOCK_CLOEXEC;
  accepting = 1;
}

static void request_transfer(struct client *client) {
  client->owes = client->begin < client->end;
  struct io_uring_sqe *request = new_request(client->owes ? IORING_OP_SEND : IORING_OP_RECV,
                                             client->fd, (uint64_t)(uintptr_t)client);
  if (!client->owes) client->begin = client->end = 0;
  request->addr = (uint64_t)(uintptr_t)(client->buffer + client->begin);
  request->len = (uint32_t)(client->owes ? client->end - client->begin : kBuffer);
  request->msg_flags = MSG_NOSIGNAL;
}

static void begin(int fd) {
  struct client *client = malloc(sizeof *client);
  if (client == NULL) {
    close(fd);
    return;
  }
  client->fd = fd;
  client->begin = client->end = 0;
  client->previous = NULL;
  client->next = clients;
  if (clients) clients->previous = client;
  clients = client;
  request_transfer(client);
}

static void end(struct client *client) {
  if (client->previous) client->previous->next = client->next;
  else clients = client->next;
  if (client->next) client->next->previous = client->previous;
  close(client->fd);
  free(client);
}

static void complete(const struct io_uring_cqe *done, int listener) {
  if (done->user_data == kCancelTag) return;
  if (done->user_data == kAcceptTag) {
    accepting = 0;
    if (done->res >= 0) begin(done->res);
    // Without room (EMFILE and its like) the next accept waits until a client has ended.
    if (done->res >= 0 || done->res == -ECONNABORTED || done->res == -EINTR)
      request_accept(listener);
    return;
  }
  struct client *client = (struct client *)(uintptr_t)done->user_data;
  int again = done->res == -EINTR || done->res == -EAGAIN;
  if (done->res <= 0 && !again) {
    end(client);
    request_accept(listener);
    return;
  }
  if (done->res > 0 && client->owes) client->begin += (size_t)done->res;
  if (done->res > 0 && !client->owes) client->end = (size_t)done->res;
  request_transfer(client);
}

// Returns how many requests completed; 0 after a signal or when `patience` was over.
static int wait_and_complete(int listener, struct __kernel_timespec *patience,
                             const sigset_t *unblocked) {
  struct io_uring_getevents_arg argument = {
      .sigmask = (uint64_t)(uintptr_t)unblocked,
      .sigmask_sz = 8,  // the kernel's own sigset_t, not the larger one of the C library
      .ts = (uint64_t)(uintptr_t)patience,
  };
  int result = enter(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument);
  if (result < 0 && errno != EINTR && errno != ETIME && errno != EBUSY && errno != EAGAIN)
    fail("io_uring_enter");
  int count = 0;
  unsigned head = *ring.complete_head;
  while (head != __atomic_load_n(ring.complete_tail, __ATOMIC_ACQUIRE)) {
    struct io_uring_cqe done = ring.completions[head & ring.complete_mask];
    __atomic_store_n(ring.complete_head, ++head, __ATOMIC_RELEASE);
    complete(&done, listener);
    ++count;
  }
  return count;
}

// Nobody sent anything during the grace period: whoever is owed nothing has ended. Shutting the
// reading side completes the recv in flight with 0.
static void end_silent(void) {
  for (struct client *client = clients; client != NULL; client = client->next)
    if (!client->owes) shutdown(client->fd, SHUT_RD);
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
  // io_uring waits for blocking descriptors only; for others it reports EAGAIN.
  if (fcntl(listener, F_SETFL, 0) < 0) fail("fcntl");
  make_ring();
  request_accept(listener);
  while (!stopping) {
    int count = wait_and_complete(listener, accepting ? NULL : &kRetry, &unblocked);
    if (count == 0) request_accept(listener);
  }
  new_request(IORING_OP_ASYNC_CANCEL, -1, kCancelTag)->addr = kAcceptTag;
  while (accepting) wait_and_complete(listener, NULL, &unblocked);
  close(listener);
  while (clients != NULL)
    if (wait_and_complete(listener, &kGrace, &unblocked) == 0) end_silent();
  return 0;
}
