// run.h - one program started in the sandbox of a host, and what became of it.
//
// Sandbox makes the command line that builds the walls: bubblewrap with its own mount, pid, ipc and
// uts namespaces in T1 and T2, none in T0; sockwork-enter inside starts the program itself. Run
// holds the channel to sockwork-enter and drains the program's output, so that the program never
// blocks on it; what is beyond the limit is counted and dropped. Not thread-safe.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "hosts.h"
#include "processes.h"
#include "sock/fd.h"
#include "tracer.h"

namespace testbed {

struct Limits {
  std::int64_t nofile = 1024;
  std::int64_t nproc = 512;
  std::int64_t cpu = 60;          // seconds
  std::int64_t fsize = 64 << 20;  // bytes
};

enum class Stdin { kNull, kClosed, kPipe, kFile };

struct RunRequest {
  std::uint64_t number = 0;             // of the run
  std::function<std::int64_t()> clock;  // for the times of traced calls
  std::string name;
  std::vector<std::string> argv;
  std::string host = "target";
  std::string directory;
  std::map<std::string, std::string> environment;
  std::map<std::string, std::string> files;  // absolute path in the sandbox -> text
  Stdin stdin_kind = Stdin::kNull;
  sock::Fd stdin_file;
  std::size_t stdout_limit = 64 << 20, stderr_limit = 1 << 20;
  Limits limits;
  bool trace = false;     // its system calls
  bool lines = false;     // and the source line of each
  bool io_uring = false;  // may be used by a traced program, unseen
};

class Output {
 public:
  Output(sock::Fd pipe, std::size_t limit) : pipe_(std::move(pipe)), limit_(limit) {}
  [[nodiscard]] int descriptor() const noexcept { return pipe_.get(); }  // -1 once closed
  // Reads what is there; true when anything came or the end was reached.
  bool drain();
  [[nodiscard]] const std::string& kept() const noexcept { return kept_; }
  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }
  [[nodiscard]] bool closed() const noexcept { return !pipe_; }

 private:
  sock::Fd pipe_;
  std::size_t limit_;
  std::string kept_;
  std::uint64_t total_ = 0;
};

enum class Phase { kStarting, kRunning, kFailed, kEnded };

class Run {
 public:
  // Starts the sandbox; the program's exec is reported later, through poll events.
  Run(const Network& network, RunRequest request, const std::string& etc_hosts,
      const std::string& resolver);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  [[nodiscard]] const RunRequest& request() const noexcept { return request_; }
  [[nodiscard]] Phase phase() const noexcept { return phase_; }
  [[nodiscard]] int exec_error() const noexcept { return exec_error_; }
  [[nodiscard]] pid_t pid() const noexcept { return program_; }
  [[nodiscard]] nlohmann::json status() const;  // PROTOCOL.md, "status"
  // Null unless the run is traced and has begun.
  [[nodiscard]] Tracer* tracer() const noexcept { return tracer_.get(); }
  [[nodiscard]] int channel() const noexcept { return channel_.get(); }
  Output& out() noexcept { return stdout_; }
  Output& err() noexcept { return stderr_; }
  // The write end of the program's standard input, once; empty unless it is a pipe.
  sock::Fd take_stdin() noexcept { return std::move(stdin_pipe_); }

  // Reads what sockwork-enter says. True when the phase changed.
  bool receive();
  [[nodiscard]] std::vector<Process> processes(Detail detail) const;
  // Sends the signal to the program, or to everything it started as well.
  void signal(int number, bool all) const;
  // Sets the soft RLIMIT_NOFILE of every process of the run, at most to its hard one. Returns the
  // program's previous limit. Throws std::system_error.
  std::uint64_t limit_descriptors(std::uint64_t wanted) const;
  // Ends everything of this run and waits for the sandbox. Safe to call twice.
  void kill();

 private:
  void spawn(const Network& network, const std::vector<std::string>& command,
             std::vector<sock::Fd>& inherited, const sock::Fd& input, const sock::Fd& output,
             const sock::Fd& errors, const sock::Fd& channel);
  void kill_pid_namespace();
  void on_message(char type, int value, pid_t sender);
  void let_go();

  RunRequest request_;
  bool own_pid_namespace_;
  bool own_user_;  // the program runs as a user of its own (T2)
  Phase phase_ = Phase::kStarting;
  pid_t sandbox_ = -1;  // our child: bubblewrap, or sockwork-enter in T0
  pid_t init_ = -1;     // sockwork-enter
  pid_t program_ = -1;
  int exec_error_ = 0;
  int wait_status_ = 0;
  sock::Fd channel_;
  sock::Fd stdin_pipe_;
  Output stdout_;
  Output stderr_;
  std::unique_ptr<Tracer> tracer_;
};

// Where sockwork-enter lies: beside the testbed's own binary.
std::string enter_path();

}  // namespace testbed
