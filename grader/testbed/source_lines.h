// source_lines.h - which line of a program's own source a stopped thread is executing for.
//
// Unwinds the stack from a system call in the C library up to the first frame whose source lies in
// the folder that the program was compiled in, by libdw (elfutils). Needs debug information; a
// program without any costs one failed look a thread. The thread must be in a ptrace stop of the
// calling thread. One object for one executed program: make a new one after execve(2).
// Not thread-safe.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace testbed {

struct Place {
  std::string file;  // relative to the folder it was compiled in: "echo_server.cpp"
  int line = 0;
  std::string function;
};

class SourceLines {
 public:
  explicit SourceLines(pid_t pid);
  ~SourceLines();
  SourceLines(const SourceLines&) = delete;
  SourceLines& operator=(const SourceLines&) = delete;

  [[nodiscard]] std::optional<Place> at(pid_t tid);

 private:
  struct State;
  State* state_;
};

}  // namespace testbed
