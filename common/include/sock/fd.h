// fd.h - one owned file descriptor.
//
// An Fd closes its descriptor exactly once, when it dies. It moves and does not copy, so there is
// always one owner. It has the size of an int and no other cost.
//
// It is not a stream: read() and write() are one system call each, may move fewer bytes than asked,
// and return EINTR to you. For loops see stream.h.
//
// Thread-safety: as an int. Const methods may run in several threads at once (the kernel orders
// them); close, reset, release and moves need the object to themselves. Closing a descriptor that
// another thread still uses is a race that no type can hide: the number may be given out again.
//
// Example:
//   sock::Fd file(::open("data", O_RDONLY | O_CLOEXEC));
//   std::array<std::byte, 512> buffer;
//   sock::Result<std::size_t> n = file.read(buffer);     // *n == 0 is the end of the file

#pragma once

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <utility>

#include "sock/error.h"

namespace sock {

class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}  // takes ownership; -1 is "none", 0 is a descriptor
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());  // closes the old descriptor now, not when `other` dies
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  // The result of this close is ignored by design; who cares about it calls close() first.
  ~Fd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ != -1; }

  // Gives the descriptor up without closing it. No system call.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

  // close(2) of the old descriptor, if any; then owns `fd`. Keeps errno, so that a destructor
  // between a failed call and your look at errno does no harm.
  void reset(int fd = -1) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old == -1) return;
    const int saved = errno;
    ::close(old);
    errno = saved;
  }

  // close(2). EBADF when there is none; EIO, ENOSPC, EDQUOT for files. The descriptor is gone
  // whatever is returned, also after EINTR: Linux frees it first, and a second close could hit a
  // descriptor that another thread has opened meanwhile. So it is never repeated.
  Result<void> close() noexcept { return detail::check_done(::close(release()), "close"); }

  // fcntl(2) with F_DUPFD_CLOEXEC: a second descriptor of the same open file. The connection of a
  // socket ends when the last of them is closed. EMFILE.
  [[nodiscard]] Result<Fd> dup() const noexcept {
    const int fd = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
    if (fd == -1) return Error::last("fcntl");
    return Fd(fd);
  }

  // fcntl(2), two of them: F_GETFL, then F_SETFL. O_NONBLOCK belongs to the open file, so every
  // copy of this descriptor (dup, fork, the shell's terminal!) sees the change.
  Result<void> set_nonblocking(bool on) const noexcept {
    const int flags = ::fcntl(fd_, F_GETFL);
    if (flags == -1) return Error::last("fcntl");
    return detail::check_done(::fcntl(fd_, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK),
                              "fcntl");
  }

  // read(2). The number of bytes; 0 at the end. EAGAIN, EINTR, ECONNRESET.
  Result<std::size_t> read(std::span<std::byte> buffer) const noexcept {
    return detail::check_count(::read(fd_, buffer.data(), buffer.size()), "read");
  }

  // write(2). How many bytes were taken, possibly fewer than given. EAGAIN, EINTR, EPIPE - but on a
  // pipe or socket without a reader the signal SIGPIPE comes first; Socket::send does not raise it.
  Result<std::size_t> write(std::span<const std::byte> data) const noexcept {
    return detail::check_count(::write(fd_, data.data(), data.size()), "write");
  }

  // readv(2) and writev(2): the same for several buffers at once.
  Result<std::size_t> readv(std::span<const iovec> buffers) const noexcept {
    return detail::check_count(::readv(fd_, buffers.data(), static_cast<int>(buffers.size())),
                               "readv");
  }
  Result<std::size_t> writev(std::span<const iovec> buffers) const noexcept {
    return detail::check_count(::writev(fd_, buffers.data(), static_cast<int>(buffers.size())),
                               "writev");
  }

 private:
  int fd_ = -1;
};

static_assert(sizeof(Fd) == sizeof(int));

}  // namespace sock
