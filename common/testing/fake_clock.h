// A clock that stands still until a test moves it.

#ifndef COMMON_TESTING_FAKE_CLOCK_H_
#define COMMON_TESTING_FAKE_CLOCK_H_

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace lapidary {

// Thread-safe.  Starts at the epoch.
class FakeClock : public Clock {
 public:
  absl::Time Now() override {
    MutexLock lock(mutex_);
    return now_;
  }

  void Advance(absl::Duration duration) {
    MutexLock lock(mutex_);
    now_ += duration;
  }

 private:
  Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch();
};

}  // namespace lapidary

#endif  // COMMON_TESTING_FAKE_CLOCK_H_
