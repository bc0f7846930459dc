// tracer.h - the system calls of one run, seen by ptrace(2).
//
// A thread of its own attaches to the program before its execve (PTRACE_SEIZE), follows everything
// that the program starts, and hears only of the calls in calls.h: a seccomp filter that
// sockwork-enter installs lets all others pass at full speed. What it sees are finished events, in
// the order in which they were known; take() hands them over. It can also change what a call does,
// within what POSIX allows (perturb()).
//
// ptrace(2) ties tracees to the thread that attached, hence the thread; it ends when the last of
// them is gone, so end the run before the Tracer. The public functions may be called from one other
// thread.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "calls.h"
#include "sock/fd.h"
#include "source_lines.h"

namespace testbed {

// A change to what a call does.
struct Perturbation {
  enum class Act { kCap, kError };
  std::uint64_t number = 0;
  std::set<std::string> calls;  // names as in calls.h
  Act act = Act::kCap;
  std::size_t bytes = 1;    // kCap: at most so many are asked for; stream sockets only
  int error = 0;            // kError: the call is not made and fails so
  std::uint64_t first = 1;  // the first of the matching calls that is changed, from 1
  std::uint64_t times = 1;  // how many are changed from there; 0 for all
  std::uint64_t seen = 0;   // matching calls so far
};

// The number of error `name`, if POSIX allows it for each of `calls`. Throws Refusal("usage").
int legal_error(const std::set<std::string>& calls, const std::string& name);

class Tracer {
 public:
  struct Options {
    std::uint64_t run = 0;
    bool lines = false;  // look for the source line of each call
    std::function<std::int64_t()> clock;
  };
  struct Event {
    std::int64_t time;
    std::string kind;  // call or process
    nlohmann::json facts;
  };

  // Attaches to `program`, which waits before its execve. Throws std::system_error.
  Tracer(pid_t program, Options options);
  ~Tracer();
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  // Readable when take() has much to give, so that it does not gather here.
  [[nodiscard]] int descriptor() const noexcept { return wake_.get(); }
  // What has become known since the last time. `unfinished` gets the calls that have begun and not
  // returned at that very moment.
  std::vector<Event> take(std::vector<Event>* unfinished = nullptr);
  // Whether this thread is stopped by a signal (and not only for a moment, by us).
  [[nodiscard]] bool is_stopped(pid_t tid);
  // Throws Refusal("usage") for a cap on a call that moves no bytes.
  void perturb(Perturbation perturbation);

 private:
  struct Pending {  // a call between its entry and its exit
    const CallSpec* call = nullptr;
    Registers args{};
    std::int64_t time = 0;
    nlohmann::json facts;
    std::string perturbed;
    std::optional<int> forced_error;
    Registers original{};  // when the registers were changed
    bool changed = false;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> memory;  // words to be put back
  };
  struct Thread {
    pid_t pid = 0;
    std::optional<Pending> pending;
    bool stopped = false;
  };
  struct Socket {
    nlohmann::json facts;
    bool stream = false;
    bool settled = true;  // its addresses do not change by themselves
  };

  void trace(pid_t program, std::promise<int> attached);
  void on_status(pid_t tid, int status);
  void on_end(pid_t tid, int status);
  void on_entry(pid_t tid, Thread& thread);
  void on_exit(pid_t tid, Thread& thread);
  void on_child(pid_t tid, Thread& thread);
  void on_exec(pid_t tid);
  void on_signal(pid_t tid, Thread& thread, int signal);
  Thread& thread_of(pid_t tid);
  void resume(pid_t tid, const Thread& thread, int signal = 0);

  void note_handler(const Pending& pending, const Memory& memory);
  void disturb(pid_t tid, Pending& pending);
  bool fits(const Perturbation& perturbation, pid_t tid, const Pending& pending);
  bool cap(pid_t tid, Pending& pending, std::size_t bytes);
  void undo(pid_t tid, const Pending& pending);

  [[nodiscard]] std::optional<std::uint64_t> inode_of(pid_t tid, int fd) const;
  // The socket that descriptor `fd` refers to; null when it is none.
  nlohmann::json socket_of(pid_t tid, pid_t pid, int fd, bool changed = false);
  std::optional<Place> place_of(pid_t tid, pid_t pid);
  void emit(std::int64_t time, const char* kind, nlohmann::json facts);

  Options options_;
  sock::Fd wake_;
  std::mutex mutex_;  // guards events_, threads_ and perturbations_
  std::vector<Event> events_;
  std::map<pid_t, Thread> threads_;
  std::vector<Perturbation> perturbations_;
  // Of the tracing thread alone:
  std::map<std::uint64_t, Socket> sockets_;
  std::uint64_t restarting_ = 0;  // signals whose handler was last installed with SA_RESTART
  std::map<pid_t, std::unique_ptr<SourceLines>> lines_;
  std::thread worker_;
};

}  // namespace testbed
