// What main() needs of the operating system: signals, memory, files that other
// programs wait for.

#ifndef COMMON_PROCESS_H_
#define COMMON_PROCESS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lapidary {

// Lets main() wait for SIGTERM, SIGINT, or another thread.
//
// From construction the two signals no longer end the process, and SIGPIPE is
// ignored.  Construct it before any thread is started: threads inherit that.
class ShutdownWaiter {
 public:
  enum class Reason { kSignal, kWoken, kTimeout };

  ShutdownWaiter();
  ~ShutdownWaiter();

  ShutdownWaiter(const ShutdownWaiter&) = delete;
  ShutdownWaiter& operator=(const ShutdownWaiter&) = delete;

  // The first of: a signal, a Wake(), or `timeout` has passed.
  Reason Wait(absl::Duration timeout);

  // Ends a Wait(), or the next one.  Any thread.
  void Wake();

 private:
  int signals_;  // signalfd
  int wakes_;    // eventfd
};

// The most memory that this process has had in use at once (resident), 0 if
// the system does not tell.
int64_t PeakResidentBytes();

// Writes a file that appears whole or not at all.
//
// Errors: UNAVAILABLE, with the path and the system's reason.
absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view contents);

}  // namespace lapidary

#endif  // COMMON_PROCESS_H_
