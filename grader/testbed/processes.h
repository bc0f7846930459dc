// processes.h - what the processes of a run do at this moment, read from proc(5).
//
// Everything is a snapshot: a process may end while it is read, and is then left out.
// Free functions without state; thread-safe.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace testbed {

struct Thread {
  pid_t tid = 0;
  char state = '?';    // R running, S sleeping, D disk, T stopped, Z ended (proc(5))
  std::string call;    // the system call it sleeps in; empty if it runs or that cannot be read
  bool timed = false;  // that call ends by itself after some time
  std::uint64_t switches = 0;  // how often it was put on a CPU
  std::uint64_t cpu_ns = 0;
};

struct Process {
  pid_t pid = 0, parent = 0;
  std::string command;
  char state = '?';
  std::vector<Thread> threads;
  std::size_t fds = 0;
  std::vector<std::uint64_t> sockets;     // inodes, one per descriptor
  std::uint64_t vm_size = 0, vm_rss = 0;  // bytes
  std::uint64_t cpu_ns = 0;
};

enum class Detail { kIds, kThreads, kAll };  // pids and states; with threads; with descriptors too

// Every process below `root` (which is not listed itself), parents before children.
std::vector<Process> processes_below(pid_t root, Detail detail);

const char* system_call_name(long number);  // "" when not known here

}  // namespace testbed
