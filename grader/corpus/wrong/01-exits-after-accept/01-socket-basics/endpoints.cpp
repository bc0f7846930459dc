// Bug: ends right after the lines are printed, without waiting for the end of the peer.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

[[noreturn]] void fail(const std::string& call, const std::string& reason) {
  std::cerr << "endpoints: " << call << ": " << reason << '\n';
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
  check("listen", listen(listener, 16));
  freeaddrinfo(info);
  return listener;
}

struct Address {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

void print(const char* what, Address address) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const int error = getnameinfo(address.get(), address.length, host, sizeof host, port,
                                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) fail("getnameinfo", gai_strerror(error));
  std::cout << what << ' ' << host << ' ' << port << std::endl;
}

int accept_one(int listener) {
  int client;
  do {
    client = accept(listener, nullptr, nullptr);
  } while (client == -1 && (errno == EINTR || errno == ECONNABORTED));
  return check("accept", client);
}

int main(int argc, char** argv) {
  if (argc != 3 || !valid_port(argv[2])) {
    std::cerr << "usage: endpoints HOST PORT\n";
    return 2;
  }
  const int listener = listen_at(argv[1], argv[2]);
  Address bound;
  check("getsockname", getsockname(listener, bound.get(), &bound.length));
  print("listening", bound);

  const int client = accept_one(listener);
  Address local;
  check("getsockname", getsockname(client, local.get(), &local.length));
  print("local", local);
  Address peer;
  check("getpeername", getpeername(client, peer.get(), &peer.length));
  print("peer", peer);

  close(client);
  close(listener);
}
