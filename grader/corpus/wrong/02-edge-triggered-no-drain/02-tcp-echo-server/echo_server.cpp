// Bug: edge-triggered, but each event brings one read only: what does not fit into the buffer
// stays in the socket until something else arrives.
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <netdb.h>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char* call) {
  std::fprintf(stderr, "echo_server: %s: %s\n", call, std::strerror(errno));
  std::exit(1);
}

// 7, 65535 and "echo" are ports; 70000, 80x and -1 are not.
static bool is_port(const std::string& text) {
  if (text.find_first_not_of("0123456789") == std::string::npos)
    return !text.empty() && text.size() <= 5 && std::stoi(text) <= 65535;
  return std::isalpha(static_cast<unsigned char>(text[0]));
}

static int listen_on(const char* host, const char* port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (int status = getaddrinfo(host, port, &hints, &found)) {
    std::fprintf(stderr, "echo_server: getaddrinfo: %s\n", gai_strerror(status));
    std::exit(1);
  }
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) < 0) die("bind");
  if (listen(fd, SOMAXCONN) < 0) die("listen");
  freeaddrinfo(found);
  return fd;
}

struct Client {
  char data[40000];
  size_t start = 0, left = 0;  // what still has to go back
};

static bool try_again() { return errno == EAGAIN || errno == EINTR; }

// Sends what is owed; false when the client has gone.
static bool flush(int fd, Client& client) {
  if (client.left == 0) return true;
  ssize_t n = send(fd, client.data + client.start, client.left, MSG_NOSIGNAL);
  if (n < 0) return try_again();
  client.start += n;
  client.left -= n;
  return true;
}

// Sends what is owed, then reads and sends that; false when the client has ended.
static bool step(int fd, Client& client) {
  if (!flush(fd, client)) return false;
  if (client.left > 0) return true;
  ssize_t n = recv(fd, client.data, sizeof client.data, 0);
  if (n == 0) return false;
  if (n < 0) return try_again();
  client.start = 0;
  client.left = n;
  return flush(fd, client);
}

static void watch(int queue, int operation, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(queue, operation, fd, &event) < 0) die("epoll_ctl");
}

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  int queue = epoll_create1(0);
  if (queue < 0) die("epoll_create1");
  watch(queue, EPOLL_CTL_ADD, listener, EPOLLIN);
  std::map<int, Client> clients;
  for (;;) {
    epoll_event events[64];
    int count = epoll_wait(queue, events, 64, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; ++i) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int connection = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (connection >= 0) {
          clients[connection];
          watch(queue, EPOLL_CTL_ADD, connection, EPOLLIN | EPOLLOUT | EPOLLET);
        } else if (errno == EMFILE || errno == ENFILE) {
          watch(queue, EPOLL_CTL_MOD, listener, 0);  // until a client gives one back
        }
      } else if (!step(fd, clients[fd])) {
        close(fd);
        clients.erase(fd);
        watch(queue, EPOLL_CTL_MOD, listener, EPOLLIN);
      }
    }
  }
}
