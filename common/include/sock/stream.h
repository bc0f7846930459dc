// stream.h - byte streams: the loops around send(2) and recv(2).
//
// A stream has no messages. These functions repeat a call until the bytes you meant have moved, the
// peer ended the stream, or a deadline passed. They retry EINTR, and work on blocking and
// non-blocking sockets alike: every call is made with MSG_DONTWAIT and waits, if it must, in
// poll(2), so a deadline holds for both.
//
// They are not for a server with one thread and many clients: while one of them waits for a slow
// client, nobody else is served. There, use Socket::send and Socket::recv and keep what is left.
//
// Thread-safety: one sender and one receiver at a time on a socket, or the streams interleave.
// A LineReader belongs to one thread.
//
// Example:
//   sock::LineReader lines(socket);
//   auto line = lines.read_until("\r\n", sock::Deadline::after(5s));   // "" at the end
//   if (line) sock::send_all(socket, sock::as_bytes(*line));

#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "sock/bytes.h"
#include "sock/error.h"
#include "sock/socket.h"
#include "sock/wait.h"

namespace sock {

namespace detail {

// After `error` of a send or recv: done when the call may be tried again (it was interrupted, or
// the socket is ready now), or the error that ends the loop; ETIMEDOUT when the deadline passed.
inline Result<void> wait_to_retry(const Socket& socket, short events, const Error& error,
                                  Deadline deadline) noexcept {
  if (error == EINTR) return {};
  if (error != EAGAIN) return error;
  const Result<short> ready = wait_for(socket, events, deadline);
  if (!ready) return ready.error();
  if (*ready == 0) return Error{ETIMEDOUT, error.call};
  return {};
}

}  // namespace detail

// Sends all of `data`: send(2), and poll(2) while the send buffer is full, until done. On an error
// (EPIPE, ECONNRESET, ETIMEDOUT for the deadline) an unknown part of it has been sent. Success says
// that the kernel has the bytes, not that the peer has read them.
inline Result<void> send_all(const Socket& socket, std::span<const std::byte> data,
                             Deadline deadline = Deadline::never()) noexcept {
  while (!data.empty()) {
    const auto sent = socket.send(data, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent) {
      data = data.subspan(*sent);
    } else if (auto retry = detail::wait_to_retry(socket, POLLOUT, sent.error(), deadline);
               !retry) {
      return retry;
    }
  }
  return {};
}

// Writes all of `data` to a file, pipe or terminal: write(2) until done, and again after EINTR. It
// is for descriptors that are no sockets and block, such as standard output. EPIPE, if SIGPIPE is
// ignored; ENOSPC, EIO.
inline Result<void> write_all(const Fd& fd, std::span<const std::byte> data) noexcept {
  while (!data.empty()) {
    const auto written = fd.write(data);
    if (written) {
      data = data.subspan(*written);
    } else if (written.error() != EINTR) {
      return written.error();
    }
  }
  return {};
}

// Receives at least `min_bytes` and at most buffer.size(): recv(2), and poll(2) while there is
// nothing, until enough. Fewer than `min_bytes` only at the end of the stream. ECONNRESET;
// ETIMEDOUT for the deadline, and then the bytes that did come are in the buffer but not counted.
inline Result<std::size_t> recv_at_least(const Socket& socket, std::span<std::byte> buffer,
                                         std::size_t min_bytes,
                                         Deadline deadline = Deadline::never()) noexcept {
  std::size_t received = 0;
  while (received < min_bytes) {
    const auto count = socket.recv(buffer.subspan(received), MSG_DONTWAIT);
    if (count) {
      if (*count == 0) break;
      received += *count;
    } else if (auto retry = detail::wait_to_retry(socket, POLLIN, count.error(), deadline);
               !retry) {
      return retry.error();
    }
  }
  return received;
}

// Cuts a stream at a delimiter. It keeps what came after the delimiter for the next call, so one
// recv(2) serves many short lines; because of that, nobody else may receive from the socket.
class LineReader {
 public:
  // A line longer than `limit` is an error: a peer that never ends its line must not fill memory.
  explicit LineReader(const Socket& socket, std::size_t limit = std::size_t{64} * 1024) noexcept
      : socket_(&socket), limit_(limit) {}

  // The bytes up to and with the next delimiter. At the end of the stream what is left, which then
  // has no delimiter, and after that "". EMSGSIZE beyond the limit; else as recv_at_least.
  Result<std::string> read_until(std::string_view delimiter,
                                 Deadline deadline = Deadline::never()) {
    std::size_t searched = 0;
    while (true) {
      const std::size_t found = buffer_.find(delimiter, searched);
      if (found != std::string::npos) return take(found + delimiter.size());
      if (buffer_.size() > limit_) return Error{EMSGSIZE, "read_until"};
      // The delimiter may have begun in the bytes already searched.
      searched = buffer_.size() - std::min(buffer_.size(), delimiter.size() - 1);

      std::array<std::byte, 4096> chunk;
      const auto count = recv_at_least(*socket_, chunk, 1, deadline);
      if (!count) return count.error();
      if (*count == 0) return take(buffer_.size());
      buffer_ += as_text(std::span(chunk).first(*count));
    }
  }

  // What has been received and not yet returned.
  [[nodiscard]] std::string_view buffered() const noexcept { return buffer_; }

 private:
  Result<std::string> take(std::size_t size) {
    if (size > limit_) return Error{EMSGSIZE, "read_until"};
    std::string line = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return line;
  }

  const Socket* socket_;
  std::size_t limit_;
  std::string buffer_;
};

}  // namespace sock
