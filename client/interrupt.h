// Ctrl-C as an event instead of a signal handler.

#ifndef CLIENT_INTERRUPT_H_
#define CLIENT_INTERRUPT_H_

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "common/mutex.h"

namespace lapidary {

// Takes SIGINT and SIGTERM for the whole process.  While an action is set, a
// signal runs it; otherwise the process ends with exit code 130.
//
// Make one in main(), before any other thread: they inherit that the signals
// are blocked.  Owns the thread "interrupt".
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();

  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Sets `action` for its own lifetime.
  class Scope {
   public:
    Scope(Interrupt& interrupt, std::function<void()> action);
    ~Scope();

    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Interrupt& interrupt_;
  };

 private:
  void Watch();

  Mutex mutex_;
  std::function<void()> action_ ABSL_GUARDED_BY(mutex_);
  const int signals_;  // File descriptors.
  const int stop_;
  std::thread thread_;
};

}  // namespace lapidary

#endif  // CLIENT_INTERRUPT_H_
