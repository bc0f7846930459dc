// Bug: SIGPIPE is neither ignored nor switched off: sending to a client that has gone kills the
// server.
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <netdb.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

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
  char data[16384];
  size_t start = 0, left = 0;  // what still has to go back
};

static bool try_again() { return errno == EAGAIN || errno == EINTR; }

// Reads when nothing is owed, sends what is owed; false when the client has ended.
static bool step(int fd, Client& client) {
  if (client.left == 0) {
    ssize_t n = recv(fd, client.data, sizeof client.data, 0);
    if (n == 0) return false;
    if (n < 0) return try_again();
    client.start = 0;
    client.left = n;
  }
  ssize_t n = send(fd, client.data + client.start, client.left, 0);
  if (n < 0) return try_again();
  client.start += n;
  client.left -= n;
  return true;
}

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  bool full = false;  // no descriptor left: do not look at the listener
  std::map<int, Client> clients;
  for (;;) {
    std::vector<pollfd> polls{{full ? -1 : listener, POLLIN, 0}};
    for (auto& [fd, client] : clients) {
      short wish = client.left > 0 ? POLLOUT : POLLIN;
      polls.push_back({fd, wish, 0});
    }
    if (poll(polls.data(), polls.size(), -1) < 0) {
      if (errno == EINTR) continue;
      die("poll");
    }
    for (size_t i = 1; i < polls.size(); ++i) {
      int fd = polls[i].fd;
      if (polls[i].revents == 0 || step(fd, clients[fd])) continue;
      close(fd);
      clients.erase(fd);
      full = false;
    }
    if (polls[0].revents != 0) {
      int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      if (fd >= 0) clients[fd];
      else if (errno == EMFILE || errno == ENFILE) full = true;
    }
  }
}
