#include "tests/integration/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "glog/logging.h"

namespace lapidary {
namespace {

// In the child: only calls that are safe after fork().
[[noreturn]] void Become(char* const* arguments, int input, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(arguments[0], arguments);
  _exit(127);
}

}  // namespace

std::unique_ptr<Process> Process::Start(
    const std::vector<std::string>& arguments, const std::string& log,
    const std::string& input) {
  std::vector<std::string> strings = arguments;
  std::vector<char*> pointers;
  for (std::string& argument : strings) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const int in = open(input.c_str(), O_RDONLY | O_CLOEXEC);
  const int out =
      open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  PCHECK(in >= 0) << input;
  PCHECK(out >= 0) << log;
  const pid_t pid = fork();
  PCHECK(pid >= 0);
  if (pid == 0) Become(pointers.data(), in, out);
  close(in);
  close(out);
  // glibc 2.36 declares pidfd_open() for C alone.
  const int pid_fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  PCHECK(pid_fd >= 0);
  return std::unique_ptr<Process>(new Process(pid, pid_fd, log));
}

Process::Process(pid_t pid, int pid_fd, std::string log)
    : pid_(pid), pid_fd_(pid_fd), log_(std::move(log)) {}

Process::~Process() {
  Signal(SIGKILL);
  (void)Wait(absl::InfiniteDuration());
  close(pid_fd_);
}

void Process::Signal(int signal) {
  if (!exit_code_) kill(pid_, signal);
}

std::optional<int> Process::Wait(absl::Duration timeout) {
  if (exit_code_) return exit_code_;
  pollfd event = {pid_fd_, POLLIN, 0};
  const int milliseconds =
      timeout == absl::InfiniteDuration()
          ? -1
          : static_cast<int>(absl::ToInt64Milliseconds(timeout));
  if (poll(&event, 1, milliseconds) <= 0) return std::nullopt;
  int status = 0;
  PCHECK(waitpid(pid_, &status, 0) == pid_);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

std::string Process::Output() const { return FileText(log_); }

std::string FileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace lapidary
