// epoll.h - waiting for many descriptors: epoll, and events, timers and signals as descriptors.
//
// With eventfd, timerfd and signalfd everything a server waits for is a descriptor, so one
// Epoll::wait is the only place where it sleeps. Each method is one system call.
//
// It is not an event loop: it calls nothing back and owns no descriptor but its own. Remove a
// descriptor, or close its last copy, before you forget it: epoll watches the open file, not the
// number (epoll(7)).
//
// Thread-safety: the kernel allows all calls on one epoll from several threads at once. An event
// descriptor may be signalled from any thread and from a signal handler.
//
// Example:
//   auto epoll = sock::Epoll::create().value();
//   epoll.add(listener.get(), EPOLLIN, {.fd = listener.get()}).value();
//   std::array<epoll_event, 64> events;
//   auto ready = epoll.wait(events, sock::Deadline::never());

#pragma once

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include "sock/error.h"
#include "sock/fd.h"
#include "sock/wait.h"

namespace sock {

class Epoll : public Fd {
 public:
  Epoll() noexcept = default;  // none; create() makes one

  // epoll_create1(2). EMFILE.
  static Result<Epoll> create(int flags = EPOLL_CLOEXEC) noexcept {
    const int fd = ::epoll_create1(flags);
    if (fd == -1) return Error::last("epoll_create1");
    return Epoll(fd);
  }

  // epoll_ctl(2). `data` comes back with every event of this descriptor. EPOLLERR and EPOLLHUP are
  // always reported, asked for or not. EEXIST, ENOENT; EPERM for a regular file.
  Result<void> add(int fd, std::uint32_t events, epoll_data_t data) const noexcept {
    return control(EPOLL_CTL_ADD, fd, events, data);
  }
  Result<void> modify(int fd, std::uint32_t events, epoll_data_t data) const noexcept {
    return control(EPOLL_CTL_MOD, fd, events, data);
  }
  Result<void> remove(int fd) const noexcept { return control(EPOLL_CTL_DEL, fd, 0, {}); }

  // epoll_wait(2): the part of `events` that was filled, empty when the deadline passed. EINTR.
  Result<std::span<epoll_event>> wait(std::span<epoll_event> events,
                                      Deadline deadline) const noexcept {
    const int count =
        ::epoll_wait(get(), events.data(), static_cast<int>(events.size()), deadline.poll_ms());
    if (count == -1) return Error::last("epoll_wait");
    return events.first(static_cast<std::size_t>(count));
  }

 private:
  explicit Epoll(int fd) noexcept : Fd(fd) {}

  [[nodiscard]] Result<void> control(int operation, int fd, std::uint32_t events,
                                     epoll_data_t data) const noexcept {
    epoll_event event{events, data};
    return detail::check_done(::epoll_ctl(get(), operation, fd, &event), "epoll_ctl");
  }
};

// A counter in the kernel that is readable while it is not 0.
class EventFd : public Fd {
 public:
  // eventfd(2). EMFILE.
  static Result<EventFd> create(unsigned value = 0,
                                int flags = EFD_CLOEXEC | EFD_NONBLOCK) noexcept {
    const int fd = ::eventfd(value, flags);
    if (fd == -1) return Error::last("eventfd");
    return EventFd(fd);
  }

  // write(2): adds `count`. EAGAIN when the counter would overflow.
  Result<void> signal(std::uint64_t count = 1) const noexcept {
    return detail::check_done(static_cast<int>(::write(get(), &count, sizeof count)), "write");
  }

  // read(2): the counter, which becomes 0. EAGAIN when it is 0 already.
  Result<std::uint64_t> take() const noexcept {
    std::uint64_t count = 0;
    if (::read(get(), &count, sizeof count) == -1) return Error::last("read");
    return count;
  }

 private:
  explicit EventFd(int fd) noexcept : Fd(fd) {}
};

// A timer that is readable when it has expired.
class TimerFd : public Fd {
 public:
  // timerfd_create(2), on the clock of Deadline. EMFILE.
  static Result<TimerFd> create(int flags = TFD_CLOEXEC | TFD_NONBLOCK) noexcept {
    const int fd = ::timerfd_create(CLOCK_MONOTONIC, flags);
    if (fd == -1) return Error::last("timerfd_create");
    return TimerFd(fd);
  }

  // timerfd_settime(2): expires after `first`, then every `interval` unless that is 0. A `first` of
  // 0 stops the timer.
  [[nodiscard]] Result<void> settime(std::chrono::nanoseconds first,
                                     std::chrono::nanoseconds interval = {}) const noexcept {
    const itimerspec times{to_timespec(interval), to_timespec(first)};
    return detail::check_done(::timerfd_settime(get(), 0, &times, nullptr), "timerfd_settime");
  }

  // read(2): how often it has expired since the last take. EAGAIN when it has not.
  Result<std::uint64_t> take() const noexcept {
    std::uint64_t count = 0;
    if (::read(get(), &count, sizeof count) == -1) return Error::last("read");
    return count;
  }

 private:
  explicit TimerFd(int fd) noexcept : Fd(fd) {}

  static timespec to_timespec(std::chrono::nanoseconds time) noexcept {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
    return {seconds.count(), (time - seconds).count()};
  }
};

// The set of these signals, for sigprocmask(2) and SignalFd.
inline sigset_t signal_set(std::initializer_list<int> signals) noexcept {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : signals) ::sigaddset(&set, signal);
  return set;
}

// Signals as something to read. Block them first, with sigprocmask(2) before any thread starts: a
// signal that is not blocked is handled the usual way and never arrives here.
class SignalFd : public Fd {
 public:
  // signalfd(2). EMFILE.
  static Result<SignalFd> create(const sigset_t& signals,
                                 int flags = SFD_CLOEXEC | SFD_NONBLOCK) noexcept {
    const int fd = ::signalfd(-1, &signals, flags);
    if (fd == -1) return Error::last("signalfd");
    return SignalFd(fd);
  }

  // read(2): one pending signal, which is then no longer pending. EAGAIN when there is none.
  Result<signalfd_siginfo> take() const noexcept {
    signalfd_siginfo info{};
    if (::read(get(), &info, sizeof info) == -1) return Error::last("read");
    return info;
  }

 private:
  explicit SignalFd(int fd) noexcept : Fd(fd) {}
};

}  // namespace sock
