#include "common/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/deadline.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

absl::Status FileError(absl::string_view what, const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(errno)));
}

// False with errno set if the system refuses.
bool WriteAll(int file, absl::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = ::write(file, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    contents.remove_prefix(written);
  }
  return true;
}

}  // namespace

ShutdownWaiter::ShutdownWaiter() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
  CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  signals_ = signalfd(-1, &signals, SFD_CLOEXEC);
  PCHECK(signals_ >= 0);
  wakes_ = eventfd(0, EFD_CLOEXEC);
  PCHECK(wakes_ >= 0);
}

ShutdownWaiter::~ShutdownWaiter() {
  ::close(signals_);
  ::close(wakes_);
}

ShutdownWaiter::Reason ShutdownWaiter::Wait(absl::Duration timeout) {
  pollfd files[] = {{.fd = signals_, .events = POLLIN, .revents = 0},
                    {.fd = wakes_, .events = POLLIN, .revents = 0}};
  const Deadline deadline = Deadline::In(timeout);
  int ready;
  do {
    ready = poll(files, 2, deadline.PollTimeout());
  } while (ready < 0 && errno == EINTR);
  PCHECK(ready >= 0);
  if (files[0].revents != 0) {
    signalfd_siginfo signal;
    PCHECK(::read(signals_, &signal, sizeof(signal)) == sizeof(signal));
    return Reason::kSignal;
  }
  if (files[1].revents != 0) {
    uint64_t wakes;
    PCHECK(::read(wakes_, &wakes, sizeof(wakes)) == sizeof(wakes));
    return Reason::kWoken;
  }
  return Reason::kTimeout;
}

void ShutdownWaiter::Wake() {
  const uint64_t one = 1;
  PCHECK(::write(wakes_, &one, sizeof(one)) == sizeof(one));
}

int64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) != 0) continue;
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kibibytes = 0;
    if (words.size() >= 2 && absl::SimpleAtoi(words[1], &kibibytes)) {
      return kibibytes * 1024;
    }
  }
  return 0;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view contents) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  const int file =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return FileError("create", temporary);
  absl::Status result;
  if (!WriteAll(file, contents)) result = FileError("write", temporary);
  if (::close(file) != 0 && result.ok()) result = FileError("close", temporary);
  if (result.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    result = FileError("create", path);
  }
  if (!result.ok()) ::unlink(temporary.c_str());
  return result;
}

}  // namespace lapidary
