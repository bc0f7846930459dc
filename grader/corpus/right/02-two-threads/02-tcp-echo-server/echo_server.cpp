// Two threads per client, a reading and a writing one, with a short queue of chunks between them:
// when the queue is full the reading one waits, so a client that does not read is not read either.
#include <sys/resource.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <deque>
#include <iostream>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "sock/epoll.h"
#include "sock/resolve.h"
#include "sock/stream.h"
#include "sock/tcp.h"

namespace {

using namespace std::chrono_literals;

constexpr auto kGrace = 500ms;
constexpr auto kRetry = 1s;
constexpr std::size_t kLongestQueue = 4;
constexpr std::size_t kChunk = 8192;

using Bytes = std::vector<std::byte>;

// Chunks from one thread to another. Once it is closed, push does nothing and pop returns what is
// left and then an empty chunk.
class Queue {
 public:
  bool push(Bytes chunk) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || chunks_.size() < kLongestQueue; });
    if (closed_) return false;
    chunks_.push_back(std::move(chunk));
    changed_.notify_all();
    return true;
  }

  Bytes pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !chunks_.empty(); });
    if (chunks_.empty()) return {};
    Bytes chunk = std::move(chunks_.front());
    chunks_.pop_front();
    changed_.notify_all();
    return chunk;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  bool empty() {
    const std::lock_guard lock(mutex_);
    return chunks_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Bytes> chunks_;
  bool closed_ = false;
};

class Session {
 public:
  // `stop` is readable once the program was told to stop.
  Session(sock::Socket socket, const sock::EventFd& stop)
      : socket_(std::move(socket)), stop_(stop) {}

  void run() {
    std::thread writer([this] { write(); });
    read();
    queue_.close();
    writer.join();
  }

 private:
  void read() {
    while (input_comes()) {
      Bytes chunk(kChunk);
      const auto count = socket_.recv(chunk, MSG_DONTWAIT);
      if (!count && (count.error() == EAGAIN || count.error() == EINTR)) continue;
      if (!count || *count == 0) return;
      chunk.resize(*count);
      if (!queue_.push(std::move(chunk))) return;
    }
  }

  // False when the program stops, and a client that is owed nothing has been silent for a while.
  bool input_comes() {
    bool stopping = false;
    for (;;) {
      std::array fds{pollfd{socket_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
      const int wait = stopping ? static_cast<int>(kGrace.count()) : -1;
      const int count = ::poll(fds.data(), stopping ? 1 : 2, wait);
      if (count > 0 && fds[0].revents != 0) return true;
      if (count == 0 && queue_.empty()) return false;
      if (count > 0) stopping = true;
    }
  }

  void write() {
    for (Bytes chunk = queue_.pop(); !chunk.empty(); chunk = queue_.pop()) {
      if (sock::send_all(socket_, chunk)) continue;
      // The connection is broken: the reading thread need not wait for anything any more.
      queue_.close();
      static_cast<void>(socket_.shutdown(SHUT_RDWR));
      return;
    }
  }

  const sock::Socket socket_;
  const sock::EventFd& stop_;
  Queue queue_;
};

// The sessions that run now.
class Crowd {
 public:
  explicit Crowd(const sock::EventFd& stop) : stop_(stop) {}

  void begin(sock::Socket socket) {
    enter();
    try {
      std::thread([this](sock::Socket mine) { run(std::move(mine)); }, std::move(socket)).detach();
    } catch (const std::system_error& error) {
      std::cerr << "echo_server: thread: " << error.what() << std::endl;
      leave();
    }
  }

  void wait_for_leave() {
    std::unique_lock lock(mutex_);
    one_left_.wait_for(lock, kRetry, [this, before = count_] { return count_ < before; });
  }

  void wait_until_empty() {
    std::unique_lock lock(mutex_);
    one_left_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  void run(sock::Socket socket) {
    try {
      Session(std::move(socket), stop_).run();
    } catch (const std::system_error& error) {
      std::cerr << "echo_server: thread: " << error.what() << std::endl;
    }
    leave();
  }

  void enter() {
    const std::lock_guard lock(mutex_);
    ++count_;
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    --count_;
    one_left_.notify_all();
  }

  const sock::EventFd& stop_;
  std::mutex mutex_;
  std::condition_variable one_left_;
  int count_ = 0;
};

void accept_one(const sock::Socket& listener, Crowd& crowd) {
  auto connection = listener.accept();
  if (connection) {
    crowd.begin(std::move(*connection));
  } else if (sock::classify_accept_error(connection.error().code) ==
             sock::AcceptAction::back_off) {
    crowd.wait_for_leave();
  }
}

sock::Result<sock::Socket> listen_at(const char* host, const char* port) {
  const auto endpoints = sock::resolve(host, port, AF_UNSPEC, SOCK_STREAM, AI_PASSIVE);
  if (!endpoints) return endpoints.error();
  auto listener = sock::tcp_listen(endpoints->front().address);
  if (!listener) return listener;
  if (auto done = listener->set_nonblocking(true); !done) return done.error();
  return listener;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == -1) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3 || !sock::is_service(argv[2])) {
    std::cerr << "usage: echo_server HOST PORT\n";
    return 2;
  }
  raise_descriptor_limit();
  sigset_t terminate;
  ::sigemptyset(&terminate);
  ::sigaddset(&terminate, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &terminate, nullptr);
  const auto signals = sock::SignalFd::create(terminate);
  if (!signals) return sock::report("echo_server", signals.error());
  const auto stop = sock::EventFd::create();
  if (!stop) return sock::report("echo_server", stop.error());
  auto listener = listen_at(argv[1], argv[2]);
  if (!listener) return sock::report("echo_server", listener.error());

  static Crowd crowd(*stop);  // threads may still leave it while main returns
  std::array fds{pollfd{listener->get(), POLLIN, 0}, pollfd{signals->get(), POLLIN, 0}};
  while (fds[1].revents == 0) {
    if (::poll(fds.data(), fds.size(), -1) > 0 && fds[0].revents != 0)
      accept_one(*listener, crowd);
  }
  listener->reset();
  static_cast<void>(stop->signal());
  crowd.wait_until_empty();
  return 0;
}
