// How many calls are open, for a drain to wait for.

#ifndef ROUTER_RPC_CALL_COUNTER_H_
#define ROUTER_RPC_CALL_COUNTER_H_

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/mutex.h"

namespace lapidary {

// Thread-safe.
class CallCounter {
 public:
  void Add() {
    MutexLock lock(mutex_);
    ++count_;
  }

  void Remove() {
    MutexLock lock(mutex_);
    if (--count_ == 0) none_.SignalAll();
  }

  int count() const {
    MutexLock lock(mutex_);
    return count_;
  }

  // Waits until no call is open, until `deadline` at most.
  void WaitForNone(absl::Time deadline) {
    MutexLock lock(mutex_);
    while (count_ > 0) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return;
      none_.WaitFor(mutex_, std::min(left, absl::Hours(1)));
    }
  }

 private:
  mutable Mutex mutex_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_CALL_COUNTER_H_
