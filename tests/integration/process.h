// Child processes of a test.

#ifndef TESTS_INTEGRATION_PROCESS_H_
#define TESTS_INTEGRATION_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lapidary {

// A running program.  Thread-compatible.
//
// It cannot outlive the test: the destructor kills it, and the kernel does if
// the thread that started it ends first.
class Process {
 public:
  // Runs `arguments`, the program first.  Its output goes to the file `log`,
  // its input is the file `input`.
  static std::unique_ptr<Process> Start(
      const std::vector<std::string>& arguments, const std::string& log,
      const std::string& input = "/dev/null");
  ~Process();

  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }

  // Has no effect once it has ended.
  void Signal(int signal);

  // Waits for its end: the exit code, or 128 and the number of the signal that
  // ended it.  Empty if it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout);

  // All that it has written so far.
  std::string Output() const;

 private:
  Process(pid_t pid, int pid_fd, std::string log);

  const pid_t pid_;
  const int pid_fd_;
  const std::string log_;
  std::optional<int> exit_code_;
};

// The whole of a file; empty if it cannot be read.
std::string FileText(const std::string& path);

}  // namespace lapidary

#endif  // TESTS_INTEGRATION_PROCESS_H_
