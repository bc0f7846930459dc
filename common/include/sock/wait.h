// wait.h - waiting for a descriptor, up to a point in time.
//
// A Deadline is a moment, not a duration: a loop that is interrupted and tries again has only what
// is left, so its whole time is bounded. A timeout that starts anew after every EINTR is not.
//
// It is not for many descriptors at once; use poll(2) itself, or epoll.h.
//
// Thread-safety: Deadline is a plain value; wait_for may run in any thread.
//
// Example:
//   const auto deadline = sock::Deadline::after(2s);
//   auto ready = sock::wait_for(socket, POLLIN, deadline);
//   if (ready && *ready == 0) ...  // the deadline passed

#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <climits>

#include "sock/error.h"
#include "sock/fd.h"

namespace sock {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;  // setting the time of day does not move it

  static Deadline after(std::chrono::nanoseconds duration) noexcept {
    return at(Clock::now() + duration);
  }
  static Deadline at(Clock::time_point time) noexcept { return Deadline(time); }
  static Deadline never() noexcept { return Deadline(Clock::time_point::max()); }

  [[nodiscard]] bool is_never() const noexcept { return time_ == Clock::time_point::max(); }
  [[nodiscard]] bool passed() const noexcept { return !is_never() && Clock::now() >= time_; }

  // What is left, as poll(2) and epoll_wait(2) want it: -1 is for ever. Rounded up, because a
  // rest of 0.4 ms rounded down to 0 would make the caller spin until it is over.
  [[nodiscard]] int poll_ms() const noexcept {
    if (is_never()) return -1;
    using std::chrono::milliseconds;
    const auto left = std::chrono::ceil<milliseconds>(time_ - Clock::now()).count();
    return static_cast<int>(std::clamp<milliseconds::rep>(left, 0, INT_MAX));
  }

 private:
  explicit Deadline(Clock::time_point time) noexcept : time_(time) {}

  Clock::time_point time_;
};

// poll(2) of one descriptor until one of `events` (POLLIN, POLLOUT, ...) or an error condition
// (POLLERR, POLLHUP) holds. The conditions that hold, or 0 when the deadline passed first.
// Repeated after EINTR with the time that is left.
inline Result<short> wait_for(const Fd& fd, short events, Deadline deadline) noexcept {
  pollfd entry{fd.get(), events, 0};
  while (true) {
    const int ready = ::poll(&entry, 1, deadline.poll_ms());
    if (ready > 0) return entry.revents;
    if (ready == -1 && errno != EINTR) return Error::last("poll");
    if (ready == 0 && deadline.passed()) return short{0};
  }
}

}  // namespace sock
