// syscall_recorder.h - which system calls a piece of code makes, as the kernel saw them.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace sock::testing {

struct Syscall {
  std::string name;  // "sendto"; the number for a call this recorder has no name for
  std::array<std::uint64_t, 6> arguments{};
};

// Runs `code` in a child process under ptrace(2) and returns its system calls in order, less those
// that get or return memory. The child is a copy of this process, so the code may use everything
// that exists here, and changes nothing of it. Throws std::runtime_error when the child did not get
// through `code` alive.
std::vector<Syscall> record_syscalls(const std::function<void()>& code);

}  // namespace sock::testing
