// Bug: there is no loop round accept(): the server ends after its first client.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>

[[noreturn]] void fail(const std::string& call, const std::string& reason) {
  std::cerr << "greeting_server: " << call << ": " << reason << '\n';
  std::exit(1);
}

int check(const std::string& call, int result) {
  if (result == -1) fail(call, std::strerror(errno));
  return result;
}

bool valid_port(const std::string& text) {
  if (!text.empty() && std::isalpha(static_cast<unsigned char>(text[0]))) return true;
  if (text.empty() || text.size() > 5) return false;
  if (text.find_first_not_of("0123456789") != std::string::npos) return false;
  return std::stoi(text) <= 65535;
}

int listen_at(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* info = nullptr;
  if (int error = getaddrinfo(host, port, &hints, &info); error != 0) {
    fail("getaddrinfo", gai_strerror(error));
  }
  const int listener = check("socket", socket(info->ai_family, info->ai_socktype, 0));
  const int on = 1;
  check("setsockopt", setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  check("bind", bind(listener, info->ai_addr, info->ai_addrlen));
  check("listen", listen(listener, SOMAXCONN));
  freeaddrinfo(info);
  return listener;
}

void print_peer(const sockaddr_storage& peer, socklen_t length) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&peer), length, host, sizeof host, port,
                  sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    std::cout << "connected from: " << host << ':' << port << std::endl;
  }
}

void send_all(int client, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = send(client, data.data(), data.size(), MSG_NOSIGNAL);
    if (n == -1 && errno == EINTR) continue;
    if (n == -1) return;
    data.remove_prefix(static_cast<std::size_t>(n));
  }
}

// Unread bytes at close() would turn the FIN into an RST.
void read_to_end(int client) {
  char ignored[4096];
  ssize_t n;
  do {
    n = recv(client, ignored, sizeof ignored, 0);
  } while (n > 0 || (n == -1 && errno == EINTR));
}

void serve(int client) {
  send_all(client, "hello client");
  shutdown(client, SHUT_WR);
  read_to_end(client);
  close(client);
}

int main(int argc, char** argv) {
  if (argc != 3 || !valid_port(argv[2])) {
    std::cerr << "usage: greeting_server HOST PORT\n";
    return 2;
  }
  const int listener = listen_at(argv[1], argv[2]);
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  int client;
  do {
    client = accept(listener, reinterpret_cast<sockaddr*>(&peer), &length);
  } while (client == -1 && (errno == EINTR || errno == ECONNABORTED));
  check("accept", client);
  print_peer(peer, length);
  serve(client);
  close(listener);
}
