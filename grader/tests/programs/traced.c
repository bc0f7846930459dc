// traced.c - programs for the tests of the call tracer, one a mode.
//
//   traced MODE [NUMBER] [ADDRESS PORT]

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static const char* self;
static const char* mode;

static long need(long result, const char* call) {
  if (result < 0) {
    fprintf(stderr, "%s: %s\n", call, strerror(errno));
    exit(1);
  }
  return result;
}
#define NEED(call) need((call), #call)

static struct sockaddr_in endpoint(char* const* argv) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  inet_pton(AF_INET, argv[0], &address.sin_addr);
  address.sin_port = htons((uint16_t)atoi(argv[1]));
  return address;
}

static int listening(char* const* argv, int type) {
  const struct sockaddr_in address = endpoint(argv);
  const int fd = (int)NEED(socket(AF_INET, type, 0));
  const int on = 1;
  NEED(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  NEED(bind(fd, (const struct sockaddr*)&address, sizeof address));
  if ((type & SOCK_STREAM) != 0) NEED(listen(fd, 64));
  return fd;
}

static int accepted(int fd) {
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  return (int)NEED(accept(fd, (struct sockaddr*)&from, &size));
}

// One recv(2) and what it brought back again; 0 at the end.
static int echo_once(int fd) {
  char buffer[512];
  const ssize_t size = recv(fd, buffer, sizeof buffer, 0);
  if (size <= 0) return 0;
  NEED(send(fd, buffer, (size_t)size, MSG_NOSIGNAL));
  return 1;
}

static void* echo(void* argument) {
  const int fd = (int)(intptr_t)argument;
  while (echo_once(fd)) continue;
  close(fd);
  return NULL;
}

static void serve_forking(int fd, int clients) {
  for (int i = 0; i < clients; ++i) {
    const int connection = accepted(fd);
    if (NEED(fork()) == 0) {
      close(fd);
      echo((void*)(intptr_t)connection);
      _exit(0);
    }
    close(connection);
    NEED(wait(NULL));
  }
}

static void serve_threads(int fd, int clients) {
  for (int i = 0; i < clients; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, echo, (void*)(intptr_t)accepted(fd));
    pthread_join(thread, NULL);
  }
}

static void serve_poll(int fd, int clients) {
  struct pollfd waits[8] = {{.fd = fd, .events = POLLIN}};
  nfds_t count = 1;
  while (clients > 0) {
    NEED(poll(waits, count, -1));
    if ((waits[0].revents & POLLIN) != 0) {
      waits[count++] = (struct pollfd){.fd = accepted(fd), .events = POLLIN | POLLRDHUP};
      continue;
    }
    for (nfds_t i = count - 1; i > 0; --i) {
      if (waits[i].revents == 0 || echo_once(waits[i].fd)) continue;
      close(waits[i].fd);
      waits[i] = waits[--count];
      --clients;
    }
  }
}

static void serve_select(int fd, int clients) {
  fd_set all, ready;
  FD_ZERO(&all);
  FD_SET(fd, &all);
  while (clients > 0) {
    ready = all;
    struct timeval limit = {10, 0};
    NEED(select(FD_SETSIZE, &ready, NULL, NULL, &limit));
    for (int i = 0; i < FD_SETSIZE; ++i) {
      if (!FD_ISSET(i, &ready)) continue;
      if (i == fd) {
        const int connection = accepted(fd);
        FD_SET(connection, &all);
      } else if (!echo_once(i)) {
        close(i);
        FD_CLR(i, &all);
        --clients;
      }
    }
  }
}

static void serve_epoll(int fd, int clients) {
  const int set = (int)NEED(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
  while (clients > 0) {
    struct epoll_event ready;
    NEED(epoll_wait(set, &ready, 1, 10000));
    if (ready.data.fd == fd) {
      event = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.fd = accepted(fd)};
      NEED(epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event));
    } else if (!echo_once(ready.data.fd)) {
      NEED(epoll_ctl(set, EPOLL_CTL_DEL, ready.data.fd, NULL));
      close(ready.data.fd);
      --clients;
    }
  }
}

static void serve_file(int fd, int clients) {
  for (int i = 0; i < clients; ++i) {
    const int connection = accepted(fd), file = (int)NEED(open("/etc/passwd", O_RDONLY));
    off_t offset = 5;
    NEED(sendfile(connection, file, &offset, 20));
    NEED(shutdown(connection, SHUT_WR));
    while (echo_once(connection)) continue;
    close(connection);
    close(file);
  }
}

static int alarm_pipe[2];
static int alarms;
static void on_alarm(int number) {
  (void)number;
  if (++alarms == 2) (void)!write(alarm_pipe[1], "x", 1);
}

static void handlers(void) {
  char byte;
  struct sigaction action = {.sa_handler = on_alarm};
  const struct itimerval soon = {.it_value = {0, 50000}};
  NEED(pipe(alarm_pipe));
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &soon, NULL);
  printf("%zd %s\n", read(alarm_pipe[0], &byte, 1), strerrorname_np(errno));
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &soon, NULL);
  printf("%zd\n", read(alarm_pipe[0], &byte, 1));
  setitimer(ITIMER_REAL, &soon, NULL);
  printf("%d %s\n", poll(NULL, 0, 10000), strerrorname_np(errno));
}

static void* exec_itself(void* argument) {
  (void)argument;
  execl(self, self, "nothing", (char*)NULL);
  return NULL;
}

static void exec_by_thread(void) {
  int ends[2];
  char byte;
  pthread_t thread;
  NEED(pipe(ends));
  pthread_create(&thread, NULL, exec_itself, NULL);
  NEED(read(ends[0], &byte, 1));
}

static void* through_a_pair(void* argument) {
  int ends[2];
  char byte = 'x';
  NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  NEED(send(ends[0], &byte, 1, MSG_NOSIGNAL));
  NEED(recv(ends[1], &byte, 1, 0));
  close(ends[0]);
  close(ends[1]);
  return argument;
}

static void* wait_for_input(void* argument) {
  char byte;
  NEED(read(0, &byte, 1));
  return argument;
}

static void many_threads(int count, void* (*body)(void*)) {
  pthread_t* threads = calloc((size_t)count, sizeof *threads);
  for (int i = 0; i < count; ++i) pthread_create(&threads[i], NULL, body, NULL);
  for (int i = 0; i < count; ++i) pthread_join(threads[i], NULL);
  free(threads);
}

static void many_forks(int count) {
  for (int i = 0; i < count; ++i) {
    if (NEED(fork()) == 0) {
      through_a_pair(NULL);
      _exit(i & 0x7f);
    }
  }
  while (wait(NULL) > 0) continue;
}

static void many_execs(int left) {
  char number[16];
  snprintf(number, sizeof number, "%d", left - 1);
  if (left > 0) execl(self, self, mode, number, (char*)NULL);
}

static void many_calls(int count) {
  for (int i = 0; i < count; ++i) close(-1);
}

static void spawns(void) {
  char* const words[] = {"true", NULL};
  pid_t child;
  if (posix_spawn(&child, "/usr/bin/true", NULL, NULL, words, NULL) == 0) wait(NULL);
  child = vfork();
  if (child == 0) {
    execv("/usr/bin/true", words);
    _exit(1);
  }
  wait(NULL);
}

// The child is killed from outside.
static void killed_in_a_call(void) {
  int ends[2];
  char byte;
  NEED(pipe(ends));
  if (NEED(fork()) == 0) NEED(read(ends[0], &byte, 1));
  wait(NULL);
}

static void* socket_of_a_second_thread(void* argument) {
  pthread_join(*(pthread_t*)argument, NULL);
  char* const anywhere[] = {"127.0.0.1", "0"};
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  const int fd = listening(anywhere, SOCK_STREAM);
  NEED(getsockname(fd, (struct sockaddr*)&name, &size));
  printf("%d\n", ntohs(name.sin_port));
  exit(0);
}

static void first_thread_ends(void) {
  static pthread_t first, second;
  first = pthread_self();
  pthread_create(&second, NULL, socket_of_a_second_thread, &first);
  pthread_exit(NULL);
}

// A system call, after which every register it got must be what it was (syscall(2)).
static long raw(long number, long a, long b, long c, long d, long e, long f) {
  long result, di = a, si = b, dx = c;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result), "+D"(di), "+S"(si), "+d"(dx), "+r"(r10), "+r"(r8), "+r"(r9)
                   : "a"(number)
                   : "rcx", "r11", "memory");
  if (di != a || si != b || dx != c || r10 != d || r8 != e || r9 != f) {
    fprintf(stderr, "call %ld changed a register\n", number);
    exit(1);
  }
  return result;
}

// Moves `size` bytes with one kind of call, as often as it takes.
static void move(int fd, long number, char* data, size_t size) {
  const int message = number == SYS_recvmsg || number == SYS_sendmsg;
  const int vector = message || number == SYS_readv || number == SYS_writev;
  for (size_t done = 0; done < size;) {
    const size_t half = (size - done) / 2;
    struct iovec parts[2] = {{data + done, half}, {data + done + half, size - done - half}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    const struct iovec parts_before[2] = {parts[0], parts[1]};
    const struct msghdr header_before = header;
    const long second = message ? (long)&header : vector ? (long)parts : (long)(data + done);
    const long third = message ? 0 : vector ? 2 : (long)(size - done);
    const long got = raw(number, fd, second, third, 0, 0, 0);
    if (got == -EINTR) continue;
    if (got <= 0) {
      fprintf(stderr, "call %ld gives %ld\n", number, got);
      exit(1);
    }
    header.msg_flags = header_before.msg_flags;
    header.msg_controllen = header_before.msg_controllen;
    if (memcmp(parts, parts_before, sizeof parts) != 0 ||
        memcmp(&header, &header_before, sizeof header) != 0) {
      fprintf(stderr, "call %ld changed its memory\n", number);
      exit(1);
    }
    printf("%ld %ld\n", number, got);
    done += (size_t)got;
  }
}

// 64 bytes with every kind of call there is, in both directions; then from memory that cannot be
// written.
static void every_kind(int fd) {
  static const struct iovec kParts[2] = {{"first", 5}, {"second", 6}};
  static const struct msghdr kHeader = {.msg_iov = (struct iovec*)kParts, .msg_iovlen = 2};
  static const long kReading[] = {SYS_read, SYS_recvfrom, SYS_recvmsg, SYS_readv};
  static const long kWriting[] = {SYS_write, SYS_sendto, SYS_sendmsg, SYS_writev};
  char data[4][64];
  for (int i = 0; i < 4; ++i) move(fd, kReading[i], data[i], sizeof data[i]);
  for (int i = 0; i < 4; ++i) move(fd, kWriting[i], data[i], sizeof data[i]);
  printf("constant %zd %zd\n", sendmsg(fd, &kHeader, MSG_NOSIGNAL), writev(fd, kParts, 2));
}

static void echo_datagrams(int fd, int count) {
  char buffer[512];
  for (int i = 0; i < count; ++i) {
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    struct sockaddr* const address = (struct sockaddr*)&from;
    const ssize_t got = NEED(recvfrom(fd, buffer, sizeof buffer, 0, address, &size));
    NEED(sendto(fd, buffer, (size_t)got, 0, address, size));
  }
}

static void no_handler(int number) { (void)number; }

// Reports each failed accept(2) until one succeeds; `flags` of a handler, or none below 0.
static void try_accept(int fd, int flags) {
  const struct sigaction action = {.sa_handler = no_handler, .sa_flags = flags};
  if (flags >= 0) sigaction(SIGUSR1, &action, NULL);
  for (int result = -1; result < 0;) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (poll(&wait, 1, -1) < 0) printf("poll %s\n", strerrorname_np(errno));
    result = accept(fd, NULL, NULL);
    printf("accept %s\n", result < 0 ? strerrorname_np(errno) : "ok");
  }
}

static void connect_in_background(char* const* argv) {
  const struct sockaddr_in address = endpoint(argv);
  const int fd = (int)NEED(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  if (connect(fd, (const struct sockaddr*)&address, sizeof address) < 0 && errno != EINPROGRESS) {
    exit(1);
  }
  struct pollfd wait = {.fd = fd, .events = POLLOUT};
  NEED(poll(&wait, 1, -1));
  NEED(send(fd, "hello", 5, 0));
}

// Two parts, of which the first is short: what was moved lies in both.
static void two_parts(void) {
  int ends[2];
  struct iovec parts[2] = {{"ab", 2}, {"cdef", 4}};
  NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  NEED(writev(ends[0], parts, 2));
}

int main(int argc, char** argv) {
  self = argv[0];
  mode = argc > 1 ? argv[1] : "";
  const int number = argc > 2 ? atoi(argv[2]) : 0;
  char* const* const where = argc > 4 ? argv + 3 : NULL;
  setvbuf(stdout, NULL, _IOLBF, 0);
#define MODE(name) if (strcmp(mode, name) == 0)
  MODE("fork") serve_forking(listening(where, SOCK_STREAM), number);
  MODE("threads") serve_threads(listening(where, SOCK_STREAM), number);
  MODE("poll") serve_poll(listening(where, SOCK_STREAM), number);
  MODE("select") serve_select(listening(where, SOCK_STREAM), number);
  MODE("epoll") serve_epoll(listening(where, SOCK_STREAM), number);
  MODE("sendfile") serve_file(listening(where, SOCK_STREAM), number);
  MODE("datagrams") echo_datagrams(listening(where, SOCK_DGRAM), number);
  MODE("every-kind") every_kind(accepted(listening(where, SOCK_STREAM)));
  MODE("accept") try_accept(listening(where, SOCK_STREAM), number);
  MODE("connect") connect_in_background(where);
  MODE("handlers") handlers();
  MODE("exec-thread") exec_by_thread();
  MODE("many-threads") many_threads(number, through_a_pair);
  MODE("waiting-threads") many_threads(number, wait_for_input);
  MODE("many-forks") many_forks(number);
  MODE("many-execs") many_execs(number);
  MODE("many-calls") many_calls(number);
  MODE("spawns") spawns();
  MODE("killed") killed_in_a_call();
  MODE("blocked") wait_for_input(NULL);
  MODE("first-thread-ends") first_thread_ends();
  MODE("two-parts") two_parts();
  MODE("uring") printf("%s\n", syscall(425, 8, NULL) < 0 ? strerrorname_np(errno) : "made");
  return 0;
}
