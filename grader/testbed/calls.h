// calls.h - the system calls that are traced, and how their arguments read.
//
// One table says which calls there are and what each argument is; Memory reads what arguments point
// to. decode_entry() and decode_exit() make the JSON of a call (docs/trace.md, "call") from raw
// registers. Free functions without state; thread-safe.

#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace testbed {

// What an argument is. "In" is read when the call begins, "out" when it has succeeded.
enum class Arg : std::uint8_t {
  kNone,
  kInt,
  kSize,
  kFd,
  kPointer,  // where it points is of no interest
  kPath,     // a NUL-terminated string
  kDomain,
  kSocketType,
  kAddressIn,   // the next argument is its length
  kAddressOut,  // the next argument points to its length
  kBufferIn,    // the next argument is its size
  kBufferOut,   // the result is how much of it was filled
  kVectorIn,    // iovec; the next argument is how many
  kVectorOut,
  kMessageIn,  // msghdr
  kMessageOut,
  kMessageFlags,
  kLevel,
  kOption,          // the argument before is its level
  kOptionValueIn,   // the next argument is its size
  kOptionValueOut,  // the next argument points to its size
  kHow,             // of shutdown
  kFcntlCommand,
  kFcntlValue,  // the argument before is the command
  kPollList,    // the next argument is how many
  kTimespec,    // a time-out: null is for ever
  kTimeval,
  kMilliseconds,  // a time-out: negative is for ever
  kFdSet,         // the first argument is how many
  kEpollOperation,
  kEpollEvent,
  kEpollEventsOut,  // the result is how many
  kSignal,
  kFdPairOut,
  kOpenFlags,
};

struct ArgSpec {
  const char* name = "";
  Arg kind = Arg::kNone;
};

struct CallSpec {
  long number = -1;
  const char* name = "";
  std::array<ArgSpec, 6> args{};
};

// Every traced call. The order is that of the table in calls.cc.
std::span<const CallSpec> traced_calls();
// Null when `number` is not traced.
const CallSpec* find_call(long number);

// Another process's memory, by process_vm_readv(2). A read may give less than was asked for.
class Memory {
 public:
  explicit Memory(pid_t pid) : pid_(pid) {}
  [[nodiscard]] std::vector<std::byte> read(std::uint64_t address, std::size_t size) const;
  [[nodiscard]] std::string text(std::uint64_t address) const;  // at most 256 bytes
  // A value of the kernel's ABI; all zero when it cannot be read.
  template <class T>
  [[nodiscard]] T value(std::uint64_t address) const {
    T result{};
    const std::vector<std::byte> bytes = read(address, sizeof(T));
    if (bytes.size() == sizeof(T)) {
      auto* to = reinterpret_cast<std::byte*>(&result);
      for (std::size_t i = 0; i < sizeof(T); ++i) to[i] = bytes[i];
    }
    return result;
  }

 private:
  pid_t pid_;
};

using Registers = std::array<std::uint64_t, 6>;  // a call's raw arguments

// The arguments as far as they are known when the call begins.
nlohmann::json decode_entry(const CallSpec& call, const Registers& args, const Memory& memory);
// Adds what the kernel has filled in to `decoded`; `result` is not negative.
void decode_exit(const CallSpec& call, const Registers& args, std::int64_t result,
                 const Memory& memory, nlohmann::json& decoded);
// The data that the call moved: {"size", "head"}; null for a call that moves none.
nlohmann::json moved_bytes(const CallSpec& call, const Registers& args, std::int64_t result,
                           const Memory& memory);

// The seccomp filter under which a program is traced: the calls above stop it for its tracer
// (SECCOMP_RET_TRACE), io_uring_setup and other architectures' calls do not exist (ENOSYS), and all
// else goes on at full speed.
// `allow_io_uring`: let its calls be made, unseen.
std::vector<sock_filter> call_filter(bool allow_io_uring);

// "ECONNRESET" for 104, also for the kernel's own restart codes; "E512"-like for unknown ones.
std::string error_name(int error);
// A sockaddr as ["192.0.2.1", 7000], a path for AF_UNIX, null otherwise.
nlohmann::json address_of(std::span<const std::byte> bytes);

std::string encode_base64(std::span<const std::byte> bytes);

}  // namespace testbed
