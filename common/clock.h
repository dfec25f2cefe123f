// Where the shells get the time from.  Pure code takes `absl::Time now`.

#ifndef COMMON_CLOCK_H_
#define COMMON_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/steady_time.h"

namespace lapidary {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
};

// The machine's clock.
class SystemClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
};

// For what only measures durations: nobody sets it (steady_time.h).
class SteadyClock : public Clock {
 public:
  absl::Time Now() override { return SteadyNow(); }
};

}  // namespace lapidary

#endif  // COMMON_CLOCK_H_
