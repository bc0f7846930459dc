#include "processes.h"

#include <dirent.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

namespace testbed {
namespace {

struct CallName {
  long number;
  const char* name;
};
// The calls a program may sleep in. Architectures differ in which of them exist.
constexpr CallName kCalls[] = {
#ifdef SYS_read
    {SYS_read, "read"},
#endif
#ifdef SYS_write
    {SYS_write, "write"},
#endif
#ifdef SYS_close
    {SYS_close, "close"},
#endif
#ifdef SYS_poll
    {SYS_poll, "poll"},
#endif
#ifdef SYS_lseek
    {SYS_lseek, "lseek"},
#endif
#ifdef SYS_mmap
    {SYS_mmap, "mmap"},
#endif
#ifdef SYS_munmap
    {SYS_munmap, "munmap"},
#endif
#ifdef SYS_ioctl
    {SYS_ioctl, "ioctl"},
#endif
#ifdef SYS_readv
    {SYS_readv, "readv"},
#endif
#ifdef SYS_writev
    {SYS_writev, "writev"},
#endif
#ifdef SYS_select
    {SYS_select, "select"},
#endif
#ifdef SYS_sched_yield
    {SYS_sched_yield, "sched_yield"},
#endif
#ifdef SYS_dup
    {SYS_dup, "dup"},
#endif
#ifdef SYS_pause
    {SYS_pause, "pause"},
#endif
#ifdef SYS_nanosleep
    {SYS_nanosleep, "nanosleep"},
#endif
#ifdef SYS_getsockname
    {SYS_getsockname, "getsockname"},
#endif
#ifdef SYS_sendfile
    {SYS_sendfile, "sendfile"},
#endif
#ifdef SYS_socket
    {SYS_socket, "socket"},
#endif
#ifdef SYS_connect
    {SYS_connect, "connect"},
#endif
#ifdef SYS_accept
    {SYS_accept, "accept"},
#endif
#ifdef SYS_sendto
    {SYS_sendto, "sendto"},
#endif
#ifdef SYS_recvfrom
    {SYS_recvfrom, "recvfrom"},
#endif
#ifdef SYS_sendmsg
    {SYS_sendmsg, "sendmsg"},
#endif
#ifdef SYS_recvmsg
    {SYS_recvmsg, "recvmsg"},
#endif
#ifdef SYS_shutdown
    {SYS_shutdown, "shutdown"},
#endif
#ifdef SYS_bind
    {SYS_bind, "bind"},
#endif
#ifdef SYS_listen
    {SYS_listen, "listen"},
#endif
#ifdef SYS_wait4
    {SYS_wait4, "wait4"},
#endif
#ifdef SYS_flock
    {SYS_flock, "flock"},
#endif
#ifdef SYS_futex
    {SYS_futex, "futex"},
#endif
#ifdef SYS_epoll_wait
    {SYS_epoll_wait, "epoll_wait"},
#endif
#ifdef SYS_clock_nanosleep
    {SYS_clock_nanosleep, "clock_nanosleep"},
#endif
#ifdef SYS_waitid
    {SYS_waitid, "waitid"},
#endif
#ifdef SYS_pselect6
    {SYS_pselect6, "pselect6"},
#endif
#ifdef SYS_ppoll
    {SYS_ppoll, "ppoll"},
#endif
#ifdef SYS_splice
    {SYS_splice, "splice"},
#endif
#ifdef SYS_accept4
    {SYS_accept4, "accept4"},
#endif
#ifdef SYS_recvmmsg
    {SYS_recvmmsg, "recvmmsg"},
#endif
#ifdef SYS_sendmmsg
    {SYS_sendmmsg, "sendmmsg"},
#endif
#ifdef SYS_epoll_pwait
    {SYS_epoll_pwait, "epoll_pwait"},
#endif
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, "epoll_pwait2"},
#endif
#ifdef SYS_rt_sigsuspend
    {SYS_rt_sigsuspend, "rt_sigsuspend"},
#endif
#ifdef SYS_rt_sigtimedwait
    {SYS_rt_sigtimedwait, "rt_sigtimedwait"},
#endif
#ifdef SYS_io_uring_enter
    {SYS_io_uring_enter, "io_uring_enter"},
#endif
#ifdef SYS_restart_syscall
    {SYS_restart_syscall, "restart_syscall"},
#endif
#ifdef SYS_fsync
    {SYS_fsync, "fsync"},
#endif
#ifdef SYS_fdatasync
    {SYS_fdatasync, "fdatasync"},
#endif
#ifdef SYS_open
    {SYS_open, "open"},
#endif
#ifdef SYS_openat
    {SYS_openat, "openat"},
#endif
#ifdef SYS_exit
    {SYS_exit, "exit"},
#endif
#ifdef SYS_exit_group
    {SYS_exit_group, "exit_group"},
#endif
#ifdef SYS_clone
    {SYS_clone, "clone"},
#endif
#ifdef SYS_vfork
    {SYS_vfork, "vfork"},
#endif
#ifdef SYS_execve
    {SYS_execve, "execve"},
#endif
#ifdef SYS_pipe
    {SYS_pipe, "pipe"},
#endif
#ifdef SYS_pipe2
    {SYS_pipe2, "pipe2"},
#endif
#ifdef SYS_msgrcv
    {SYS_msgrcv, "msgrcv"},
#endif
#ifdef SYS_semop
    {SYS_semop, "semop"},
#endif
#ifdef SYS_semtimedop
    {SYS_semtimedop, "semtimedop"},
#endif
#ifdef SYS_io_getevents
    {SYS_io_getevents, "io_getevents"},
#endif
#ifdef SYS_inotify_add_watch
    {SYS_inotify_add_watch, "inotify_add_watch"},
#endif
#ifdef SYS_fcntl
    {SYS_fcntl, "fcntl"},
#endif
#ifdef SYS_preadv
    {SYS_preadv, "preadv"},
#endif
#ifdef SYS_pwritev
    {SYS_pwritev, "pwritev"},
#endif
#ifdef SYS_pread64
    {SYS_pread64, "pread64"},
#endif
#ifdef SYS_pwrite64
    {SYS_pwrite64, "pwrite64"},
#endif
#ifdef SYS_tee
    {SYS_tee, "tee"},
#endif
#ifdef SYS_vmsplice
    {SYS_vmsplice, "vmsplice"},
#endif
};

std::string slurp(const std::string& path) {
  const std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

// The numbers among the entries of a directory of proc(5); empty when it is gone.
std::vector<int> numbered_entries(const std::string& path) {
  std::vector<int> numbers;
  const std::unique_ptr<DIR, CloseDirectory> directory(::opendir(path.c_str()));
  if (!directory) return numbers;
  while (const dirent* entry = ::readdir(directory.get())) {
    int number = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, number).ptr == end) numbers.push_back(number);
  }
  return numbers;
}

// The fields of /proc/PID/stat after the command's name, which may hold spaces and brackets.
struct Stat {
  std::string command;
  char state = '?';
  pid_t parent = 0;
  std::uint64_t vm_size = 0, vm_rss = 0;
};

std::optional<Stat> read_stat(const std::string& directory) {
  const std::string text = slurp(directory + "/stat");
  const std::size_t open = text.find('('), close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return std::nullopt;
  Stat stat;
  stat.command = text.substr(open + 1, close - open - 1);
  std::istringstream fields(text.substr(close + 2));
  std::string skipped;
  fields >> stat.state >> stat.parent;
  for (int field = 5; field < 23; ++field) fields >> skipped;
  std::uint64_t pages = 0;
  fields >> stat.vm_size >> pages;
  stat.vm_rss = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return stat;
}

// Whether the call with these arguments (proc(5), /proc/PID/syscall) ends by its own time-out.
bool is_timed(std::string_view name, const std::array<std::uint64_t, 6>& arguments) {
  const auto as_int = [&](std::size_t i) { return static_cast<int>(arguments[i]); };
  if (name == "poll") return as_int(2) >= 0;
  if (name == "epoll_wait" || name == "epoll_pwait") return as_int(3) >= 0;
  if (name == "ppoll" || name == "rt_sigtimedwait") return arguments[2] != 0;
  if (name == "epoll_pwait2" || name == "futex") return arguments[3] != 0;
  if (name == "select" || name == "pselect6" || name == "recvmmsg") return arguments[4] != 0;
  if (name == "semtimedop") return arguments[3] != 0;
  if (name == "io_uring_enter") return (arguments[3] & IORING_ENTER_EXT_ARG) != 0;
  return name == "nanosleep" || name == "clock_nanosleep" || name == "restart_syscall";
}

void read_call(const std::string& directory, Thread& thread) {
  std::istringstream text(slurp(directory + "/syscall"));
  long number = -1;
  if (!(text >> number) || number < 0) return;  // "running", or not allowed to look
  std::array<std::uint64_t, 6> arguments{};
  for (std::uint64_t& argument : arguments) text >> std::hex >> argument;
  thread.call = system_call_name(number);
  if (thread.call.empty()) thread.call = "system call " + std::to_string(number);
  thread.timed = is_timed(thread.call, arguments);
}

Thread read_thread(const std::string& directory, pid_t tid) {
  Thread thread;
  thread.tid = tid;
  if (const auto stat = read_stat(directory)) thread.state = stat->state;
  std::uint64_t waited = 0;
  std::istringstream(slurp(directory + "/schedstat")) >> thread.cpu_ns >> waited >> thread.switches;
  if (thread.state == 'S' || thread.state == 'D') read_call(directory, thread);
  return thread;
}

void read_descriptors(const std::string& directory, Process& process) {
  for (const int fd : numbered_entries(directory + "/fd")) {
    ++process.fds;
    std::array<char, 64> target{};
    const std::string path = directory + "/fd/" + std::to_string(fd);
    if (::readlink(path.c_str(), target.data(), target.size() - 1) < 0) continue;
    std::uint64_t inode = 0;
    if (std::sscanf(target.data(), "socket:[%lu]", &inode) == 1) process.sockets.push_back(inode);
  }
}

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task/";
  for (const int tid : numbered_entries(tasks)) {
    std::istringstream text(slurp(tasks + std::to_string(tid) + "/children"));
    for (pid_t child = 0; text >> child;) children.push_back(child);
  }
  return children;
}

std::optional<Process> read_process(pid_t pid, Detail detail) {
  const std::string directory = "/proc/" + std::to_string(pid);
  const auto stat = read_stat(directory);
  if (!stat) return std::nullopt;
  Process process;
  process.pid = pid;
  process.parent = stat->parent;
  process.command = stat->command;
  process.state = stat->state;
  process.vm_size = stat->vm_size;
  process.vm_rss = stat->vm_rss;
  if (detail == Detail::kIds) return process;
  for (const int tid : numbered_entries(directory + "/task")) {
    process.threads.push_back(read_thread(directory + "/task/" + std::to_string(tid), tid));
    process.cpu_ns += process.threads.back().cpu_ns;
  }
  if (detail == Detail::kAll) read_descriptors(directory, process);
  return process;
}

}  // namespace

const char* system_call_name(long number) {
  for (const CallName& call : kCalls) {
    if (call.number == number) return call.name;
  }
  return "";
}

std::vector<Process> processes_below(pid_t root, Detail detail) {
  std::vector<Process> processes;
  std::vector<pid_t> waiting = children_of(root);
  for (std::size_t i = 0; i < waiting.size(); ++i) {
    const auto process = read_process(waiting[i], detail);
    if (!process) continue;
    processes.push_back(*process);
    for (const pid_t child : children_of(waiting[i])) waiting.push_back(child);
  }
  return processes;
}

}  // namespace testbed
