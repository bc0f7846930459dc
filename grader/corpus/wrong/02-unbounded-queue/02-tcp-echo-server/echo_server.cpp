// Bug: the server reads as fast as the client sends and keeps what it cannot send back, without
// any limit.
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
  std::string queue;   // what has come
  size_t sent = 0;     // and how much of it has gone back
  bool ended = false;  // the client has sent its FIN
};

static bool try_again() { return errno == EAGAIN || errno == EINTR; }

// Reads what has come, sends what is owed; false when both are done.
static bool step(int fd, Client& client) {
  char data[16384];
  ssize_t n = client.ended ? -1 : recv(fd, data, sizeof data, 0);
  if (n < 0 && !client.ended && !try_again()) return false;
  if (n == 0) client.ended = true;
  if (n > 0) client.queue.append(data, n);
  if (!client.queue.empty()) {
    size_t left = client.queue.size() - client.sent;
    n = send(fd, client.queue.data() + client.sent, left, MSG_NOSIGNAL);
    if (n < 0 && !try_again()) return false;
    if (n > 0) client.sent += n;
    if (client.sent == client.queue.size()) {
      client.queue.clear();
      client.sent = 0;
    }
  }
  return !client.ended || !client.queue.empty();
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
          watch(queue, EPOLL_CTL_ADD, connection, EPOLLIN);
        } else if (errno == EMFILE || errno == ENFILE) {
          watch(queue, EPOLL_CTL_MOD, listener, 0);  // until a client gives one back
        }
      } else if (step(fd, clients[fd])) {
        Client& client = clients[fd];
        uint32_t wish = client.queue.empty() ? 0u : EPOLLOUT;
        watch(queue, EPOLL_CTL_MOD, fd, client.ended ? wish : wish | EPOLLIN);
      } else {
        close(fd);
        clients.erase(fd);
        watch(queue, EPOLL_CTL_MOD, listener, EPOLLIN);
      }
    }
  }
}
