#include "syscall_recorder.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "sock/error.h"

namespace sock::testing {
namespace {

// A system call that does not exist: the child makes it before and after the code to record.
constexpr long kMarker = 1'000'000;

constexpr std::array kNames{
    std::pair{SYS_accept4, "accept4"},
    std::pair{SYS_bind, "bind"},
    std::pair{SYS_close, "close"},
    std::pair{SYS_connect, "connect"},
    std::pair{SYS_epoll_create1, "epoll_create1"},
    std::pair{SYS_epoll_ctl, "epoll_ctl"},
    std::pair{SYS_epoll_pwait, "epoll_pwait"},
#ifdef SYS_epoll_wait  // newer architectures have only the call with the p
    std::pair{SYS_epoll_wait, "epoll_wait"},
#endif
    std::pair{SYS_eventfd2, "eventfd2"},
    std::pair{SYS_fcntl, "fcntl"},
    std::pair{SYS_getpeername, "getpeername"},
    std::pair{SYS_getsockname, "getsockname"},
    std::pair{SYS_getsockopt, "getsockopt"},
    std::pair{SYS_listen, "listen"},
#ifdef SYS_poll
    std::pair{SYS_poll, "poll"},
#endif
    std::pair{SYS_ppoll, "ppoll"},
    std::pair{SYS_read, "read"},
    std::pair{SYS_readv, "readv"},
    std::pair{SYS_recvfrom, "recvfrom"},
    std::pair{SYS_recvmsg, "recvmsg"},
    std::pair{SYS_sendmsg, "sendmsg"},
    std::pair{SYS_sendto, "sendto"},
    std::pair{SYS_setsockopt, "setsockopt"},
    std::pair{SYS_shutdown, "shutdown"},
    std::pair{SYS_signalfd4, "signalfd4"},
    std::pair{SYS_socket, "socket"},
    std::pair{SYS_socketpair, "socketpair"},
    std::pair{SYS_timerfd_create, "timerfd_create"},
    std::pair{SYS_timerfd_settime, "timerfd_settime"},
    std::pair{SYS_write, "write"},
    std::pair{SYS_writev, "writev"},
};

std::string name_of(std::uint64_t number) {
  const auto* const found = std::find_if(kNames.begin(), kNames.end(), [number](const auto& entry) {
    return static_cast<std::uint64_t>(entry.first) == number;
  });
  return found == kNames.end() ? std::to_string(number) : found->second;
}

// The runtime of a sanitizer asks for memory whenever it likes.
bool is_about_memory(std::uint64_t number) {
  return number == SYS_mmap || number == SYS_munmap || number == SYS_madvise;
}

[[noreturn]] void run_child(const std::function<void()>& code) {
  ::raise(SIGSTOP);  // until the parent traces us
  ::syscall(kMarker);
  code();
  ::syscall(kMarker);
  ::_exit(0);
}

int wait_for_stop(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, __WALL | WUNTRACED) == -1) {
    if (errno != EINTR) throw std::runtime_error("waitpid: " + Error::last("waitpid").reason());
  }
  return status;
}

// The call the child is about to make; nothing at other stops.
bool at_entry(pid_t child, __ptrace_syscall_info& info) {
  const auto size =
      check(::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info), "ptrace").value();
  return size > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

std::vector<Syscall> trace(pid_t child) {
  constexpr auto kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  check(::ptrace(PTRACE_SEIZE, child, nullptr, kOptions), "ptrace").value();
  ::kill(child, SIGCONT);

  std::vector<Syscall> calls;
  int markers = 0;
  while (true) {
    const int status = wait_for_stop(child);
    if (!WIFSTOPPED(status)) {
      if (markers == 2 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return calls;
      throw std::runtime_error("the traced child ended early");
    }
    const int signal = WSTOPSIG(status);
    const bool is_syscall = signal == (SIGTRAP | 0x80);
    __ptrace_syscall_info info{};
    if (is_syscall && at_entry(child, info)) {
      if (info.entry.nr == static_cast<std::uint64_t>(kMarker)) {
        ++markers;
      } else if (markers == 1 && !is_about_memory(info.entry.nr)) {
        Syscall call{name_of(info.entry.nr)};
        std::copy(std::begin(info.entry.args), std::end(info.entry.args), call.arguments.begin());
        calls.push_back(std::move(call));
      }
    }
    // SIGCONT and the group stop end here; anything else is the child's own affair.
    const bool deliver = !is_syscall && status >> 16 == 0 && signal != SIGCONT;
    ::ptrace(PTRACE_SYSCALL, child, nullptr, deliver ? signal : 0);
  }
}

}  // namespace

std::vector<Syscall> record_syscalls(const std::function<void()>& code) {
  const pid_t child = ::fork();
  if (child == -1) throw std::runtime_error("fork: " + Error::last("fork").reason());
  if (child == 0) run_child(code);
  const int status = wait_for_stop(child);
  if (!WIFSTOPPED(status)) throw std::runtime_error("the child did not stop");
  return trace(child);
}

}  // namespace sock::testing
