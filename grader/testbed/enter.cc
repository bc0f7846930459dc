// sockwork-enter - the first process inside a program's sandbox.
//
//   sockwork-enter CHANNEL STDIN UID NOFILE NPROC CPU FSIZE -- PROGRAM [ARG...]
//
// It is the parent of everything the program starts (process 1 of the pid namespace, or a child
// subreaper without one), tells the testbed over the SEQPACKET socket CHANNEL what happens, and
// dies, with all below it, when the testbed does. It starts the program with a clean slate: default
// signal dispositions, an empty signal mask, descriptors 0-2 only, the limits given, no privilege.
//
// Messages: one Message each way. To the testbed: I (process 1 is here), R (the program's process
// is ready; both carry the sender's pid as SCM_CREDENTIALS), E (exec succeeded), X (it failed:
// errno), S (the program ended: wait status). From the testbed to the ready process: G (go); a
// value above 0 says that a seccomp filter of so many instructions follows, to be installed before
// exec.
//
// STDIN is "closed" or "open"; UID -1 keeps the user; a limit of -1 keeps what is inherited.

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enter.h"

namespace {

using testbed::Message;

int g_channel = -1;

void tell(char type, int value) {
  const Message message{type, value};
  while (::send(g_channel, &message, sizeof(message), MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

void limit(int resource, const char* text) {
  const long value = std::strtol(text, nullptr, 10);
  if (value < 0) return;
  const rlimit wanted{static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  if (::setrlimit(resource, &wanted) == 0) return;
  rlimit highest{};  // without privilege no limit can rise above the hard one
  ::getrlimit(resource, &highest);
  highest.rlim_cur = highest.rlim_max;
  ::setrlimit(resource, &highest);
}

void drop_privileges(long uid) {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (uid < 0) return;
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  const auto id = static_cast<uid_t>(uid);
  if (::setgroups(0, nullptr) != 0 || ::setresgid(id, id, id) != 0 ||
      ::setresuid(id, id, id) != 0) {
    tell('X', errno);
    ::_exit(127);
  }
}

void reset_signals() {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &plain, nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The filter hands the calls that are traced to the testbed, which has attached by now.
void install_filter(int instructions) {
  static sock_filter filter[BPF_MAXINSNS];
  if (instructions <= 0) return;
  const ssize_t size = ::recv(g_channel, filter, sizeof(filter), 0);
  const auto wanted = static_cast<std::size_t>(instructions) * sizeof(sock_filter);
  sock_fprog program{static_cast<unsigned short>(instructions), filter};
  if (size != static_cast<ssize_t>(wanted) ||
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
    tell('X', errno);
    ::_exit(127);
  }
}

[[noreturn]] void become_program(char** argv, char** program) {
  limit(RLIMIT_NOFILE, argv[4]);
  limit(RLIMIT_CPU, argv[6]);
  limit(RLIMIT_FSIZE, argv[7]);
  limit(RLIMIT_CORE, "0");
  limit(RLIMIT_NPROC, argv[5]);
  drop_privileges(std::strtol(argv[3], nullptr, 10));
  reset_signals();
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // else an unprivileged testbed could not attach
  tell('R', 0);
  Message go{};
  if (::recv(g_channel, &go, sizeof(go), 0) != sizeof(go)) ::_exit(127);
  if (std::strcmp(argv[2], "closed") == 0) ::close(0);
  install_filter(go.value);
  ::execvp(program[0], program);
  const int error = errno;
  // The write end of the exec pipe is the last descriptor that is not the channel's.
  (void)!::write(g_channel + 1, &error, sizeof(error));
  ::_exit(127);
}

// Without a pid namespace: ends everything below, also what lost its parent and came to this
// process.
void kill_below() {
  const std::string list = "/proc/self/task/" + std::to_string(::getpid()) + "/children";
  while (true) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    std::ifstream children(list);
    bool any = false;
    for (pid_t child = 0; children >> child; any = true) ::kill(child, SIGKILL);
    if (!any) return;
  }
}

// Ends quietly when the testbed goes away. The end of process 1 is the end of its pid namespace.
int reap(pid_t program, int exec_pipe, int signals) {
  bool executed = false;
  while (true) {
    pollfd waits[] = {
        {signals, POLLIN, 0}, {g_channel, 0, 0}, {executed ? -1 : exec_pipe, POLLIN, 0}};
    if (::poll(waits, 3, -1) < 0 && errno != EINTR) return 1;
    if ((waits[1].revents & (POLLHUP | POLLERR)) != 0) {
      if (::getpid() != 1) kill_below();
      return 0;
    }
    if (!executed && waits[2].revents != 0) {
      int error = 0;
      executed = true;
      const bool failed = ::read(exec_pipe, &error, sizeof(error)) == sizeof(error);
      tell(failed ? 'X' : 'E', error);
    }
    if ((waits[0].revents & POLLIN) == 0) continue;
    signalfd_siginfo information{};
    (void)!::read(signals, &information, sizeof(information));
    int status = 0;
    for (pid_t child = 0; (child = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (child != program) continue;
      if (!executed) {
        int error = 0;
        const bool failed = ::read(exec_pipe, &error, sizeof(error)) == sizeof(error);
        tell(failed ? 'X' : 'E', error);
        executed = true;
      }
      tell('S', status);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 10) return 2;
  g_channel = std::atoi(argv[1]);
  if (::getpid() == 1) ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  // Above 2 nothing but the channel (at a known place) and the exec pipe may be open.
  const int place = 3;
  if (g_channel != place) {
    ::dup3(g_channel, place, O_CLOEXEC);
    g_channel = place;
  } else {
    ::fcntl(place, F_SETFD, FD_CLOEXEC);
  }
  ::syscall(SYS_close_range, place + 1, ~0U, 0);
  int exec_pipe[2];
  if (::pipe2(exec_pipe, O_CLOEXEC) != 0) return 1;
  if (exec_pipe[1] != place + 1) {  // swap, so that the write end has a known place
    const int moved = ::fcntl(exec_pipe[0], F_DUPFD_CLOEXEC, place + 3);
    ::dup3(exec_pipe[1], place + 1, O_CLOEXEC);
    ::close(exec_pipe[1]);
    exec_pipe[0] = moved;
    exec_pipe[1] = place + 1;
  }
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  const int signals = ::signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
  tell('I', 0);
  const pid_t program = ::fork();
  if (program < 0) return 1;
  if (program == 0) become_program(argv, argv + 9);
  ::close(exec_pipe[1]);
  // Nothing here may keep the program's pipes open: their end is the program's end.
  for (int stream = 0; stream <= 2; ++stream) ::close(stream);
  return reap(program, exec_pipe[0], signals);
}
