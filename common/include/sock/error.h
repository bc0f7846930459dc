// error.h - what failed, and which call said so.
//
// Error is a value: the code, the call it came from, and where the code is explained (errno(3) or
// getaddrinfo(3)). Result<T> is either a T or an Error, and the compiler does not let you drop it.
// Reading a Result is a subset of C++23's std::expected<T, Error>.
//
// It is not an exception hierarchy. A server that waits sees EAGAIN all day long; that is news, not
// a disaster. value() is the explicit way to turn an Error into an exception.
//
// Thread-safety: Error and Result are plain values, as thread-safe as an int.
//
// Example:
//   sock::Result<int> fd = sock::check(::socket(AF_INET, SOCK_STREAM, 0), "socket");
//   if (!fd) return sock::report("my_program", fd.error());    // my_program: socket: REASON
//   if (fd.error() == EMFILE) ...                              // errno constants, as in the manual

#pragma once

#include <netdb.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

namespace sock {

// The codes EAI_* of getaddrinfo(3). They are not errno values: EAI_AGAIN is not EAGAIN.
inline const std::error_category& gai_category() noexcept {
  struct Category final : std::error_category {
    [[nodiscard]] const char* name() const noexcept override { return "getaddrinfo"; }
    [[nodiscard]] std::string message(int code) const override { return ::gai_strerror(code); }
  };
  static const Category category;
  return category;
}

// "ECONNREFUSED" for ECONNREFUSED; empty for a number that is no errno value. For traces and tests.
inline std::string_view errno_name(int errno_value) noexcept {
  const char* name = ::strerrorname_np(errno_value);
  return name == nullptr ? std::string_view{} : std::string_view{name};
}

struct Error {
  enum class Domain : std::uint8_t { errno_value, gai };

  int code = 0;           // an errno value, or EAI_* when domain is gai; 0 is no error
  const char* call = "";  // the name of the call, always a string literal
  Domain domain = Domain::errno_value;

  // The error of the call that returned -1 last.
  static Error last(const char* call) noexcept { return Error{errno, call}; }

  [[nodiscard]] std::error_code error_code() const noexcept {
    return {code, domain == Domain::gai ? gai_category() : std::system_category()};
  }
  // "Connection refused"
  [[nodiscard]] std::string reason() const { return error_code().message(); }
  // "connect: Connection refused"
  [[nodiscard]] std::string message() const { return std::string(call) + ": " + reason(); }

  // if (result.error() == ECONNREFUSED). A getaddrinfo code never equals an errno value.
  friend bool operator==(const Error& error, int errno_value) noexcept {
    return error.domain == Domain::errno_value && error.code == errno_value;
  }
  friend bool operator==(const Error& left, const Error& right) noexcept {
    return left.code == right.code && left.domain == right.domain;
  }
};

namespace detail {
[[noreturn]] inline void raise(const Error& error) {
  throw std::system_error(error.error_code(), error.call);
}
}  // namespace detail

// Either the value a call produced, or the Error that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  // Implicit, so that a function may end in `return socket;` or `return error;`.
  Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : state_(std::move(value)) {}
  Result(const Error& error) noexcept : state_(error) {}

  [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  // The value. Undefined when there is none, like the * of std::optional: test first. (UBSan
  // reports a * without a value.)
  T& operator*() & noexcept { return *operator->(); }
  const T& operator*() const& noexcept { return *operator->(); }
  T&& operator*() && noexcept { return std::move(*operator->()); }
  T* operator->() noexcept {
    if (!has_value()) __builtin_unreachable();
    return std::get_if<0>(&state_);
  }
  const T* operator->() const noexcept {
    if (!has_value()) __builtin_unreachable();
    return std::get_if<0>(&state_);
  }

  // The error; Error{} (code 0) when there is a value, so `r.error() == EAGAIN` needs no test
  // first.
  [[nodiscard]] Error error() const noexcept {
    const Error* error = std::get_if<1>(&state_);
    return error == nullptr ? Error{} : *error;
  }

  // The value, or a thrown std::system_error whose what() begins with the name of the call.
  T& value() & { return require(), **this; }
  const T& value() const& { return require(), **this; }
  T&& value() && { return require(), std::move(**this); }

  // The value, or `other` when there is none.
  template <class U>
  [[nodiscard]] T value_or(U&& other) const& {
    return has_value() ? **this : static_cast<T>(std::forward<U>(other));
  }

 private:
  void require() const {
    if (!has_value()) detail::raise(error());
  }

  std::variant<T, Error> state_;
};

// The outcome of a call that produces nothing but success or failure.
template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() noexcept = default;
  Result(const Error& error) noexcept : error_(error) {}

  [[nodiscard]] bool has_value() const noexcept { return error_.code == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  [[nodiscard]] Error error() const noexcept { return error_; }
  void value() const {
    if (!has_value()) detail::raise(error_);
  }

 private:
  Error error_;
};

// A raw call's return value with its errno: check(::bind(fd, address, length), "bind").
// For every call that says failure with -1, which is every socket call except getaddrinfo.
template <std::signed_integral R>
Result<R> check(R returned, const char* call) noexcept {
  if (returned == -1) return Error::last(call);
  return returned;
}

namespace detail {

// The same for calls whose success carries no value ...
inline Result<void> check_done(int returned, const char* call) noexcept {
  if (returned == -1) return Error::last(call);
  return {};
}

// ... and for calls that return a number of bytes.
inline Result<std::size_t> check_count(ssize_t returned, const char* call) noexcept {
  if (returned == -1) return Error::last(call);
  return static_cast<std::size_t>(returned);
}

}  // namespace detail

// Writes the line `PROGRAM: CALL: REASON` to standard error and returns 1, so that main() may say
// `return report("echo_server", bound.error());`. One write(2), so lines of several processes do
// not mix. A failure to write is ignored: there is nowhere left to report it.
inline int report(std::string_view program, const Error& error) {
  const std::string line = std::string(program) + ": " + error.message() + "\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  return 1;
}

}  // namespace sock
