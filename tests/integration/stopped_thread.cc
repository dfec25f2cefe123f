#include "tests/integration/stopped_thread.h"

#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "tests/integration/process.h"

namespace lapidary {
namespace {

pid_t FindThread(pid_t pid, const std::string& name) {
  const std::string tasks = absl::StrCat("/proc/", pid, "/task");
  for (const auto& entry : std::filesystem::directory_iterator(tasks)) {
    const std::string comm = FileText(entry.path().string() + "/comm");
    if (absl::StripAsciiWhitespace(comm) == name) {
      return std::atoi(entry.path().filename().c_str());
    }
  }
  LOG(FATAL) << "process " << pid << " has no thread " << name;
}

}  // namespace

void StoppedThread::Stop(pid_t pid, const std::string& name) {
  CHECK_EQ(thread_, 0);
  thread_ = FindThread(pid, name);
  PCHECK(ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr) == 0);
  PCHECK(ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr) == 0);
  int status = 0;
  PCHECK(waitpid(thread_, &status, __WALL) == thread_);
}

void StoppedThread::AwaitEnd() {
  int status = 0;
  do {
    PCHECK(waitpid(thread_, &status, __WALL) == thread_);
  } while (!WIFEXITED(status) && !WIFSIGNALED(status));
  thread_ = 0;
}

StoppedThread::~StoppedThread() {
  if (thread_ != 0) ptrace(PTRACE_DETACH, thread_, nullptr, nullptr);
}

}  // namespace lapidary
