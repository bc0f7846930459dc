// refusal.h - how a request to the testbed fails.
//
// A verb that cannot be carried out throws a Refusal; the server turns it into the reply's `error`
// (PROTOCOL.md). A failing system call throws std::system_error (sock::Result::value()), which
// becomes the code "system". Plain values; thread-safe.

#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace testbed {

class Refusal : public std::runtime_error {
 public:
  Refusal(std::string code, const std::string& message)
      : std::runtime_error(message), code_(std::move(code)) {}
  [[nodiscard]] const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

}  // namespace testbed
