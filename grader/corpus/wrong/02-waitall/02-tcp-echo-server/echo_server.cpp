// Bug: takes the first piece of a client for one message and expects all its messages to have this
// length: MSG_WAITALL waits for bytes that the client does not want to send.
#include <cctype>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <netdb.h>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <thread>
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
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) < 0) die("bind");
  if (listen(fd, SOMAXCONN) < 0) die("listen");
  freeaddrinfo(found);
  return fd;
}

static std::mutex lock;
static std::condition_variable one_ended;
static unsigned long ended = 0;  // clients served to their end

static bool send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    size -= n;
  }
  return true;
}

static void serve(int fd) {
  char buffer[8192];
  ssize_t n = recv(fd, buffer, sizeof buffer, 0);
  size_t size = n > 0 ? n : 0;  // of a message
  while (n > 0 && send_all(fd, buffer, n)) n = recv(fd, buffer, size, MSG_WAITALL);
  close(fd);
  std::lock_guard<std::mutex> guard(lock);
  ++ended;
  one_ended.notify_all();
}

int main(int argc, char** argv) {
  if (argc != 3 || !is_port(argv[2])) {
    std::fprintf(stderr, "usage: echo_server HOST PORT\n");
    return 2;
  }
  int listener = listen_on(argv[1], argv[2]);
  std::unique_lock<std::mutex> guard(lock, std::defer_lock);
  for (;;) {
    guard.lock();
    unsigned long before = ended;
    guard.unlock();
    int fd = accept(listener, nullptr, nullptr);
    if (fd >= 0) {
      try {
        std::thread(serve, fd).detach();
      } catch (const std::system_error&) {
        close(fd);
      }
    } else if (errno == EMFILE || errno == ENFILE) {
      guard.lock();  // no descriptor left: wait until a client gives one back
      one_ended.wait(guard, [&] { return ended != before; });
      guard.unlock();
    }
  }
}
