// Where a rank is in its step: the model tells, the watchdog reads.

#ifndef WORKER_PARALLEL_STEP_PROGRESS_H_
#define WORKER_PARALLEL_STEP_PROGRESS_H_

#include <atomic>
#include <cstdint>

namespace lapidary {

// Thread-safe.  The two are not read as one: for people, and for deadlines of
// seconds.
struct StepProgress {
  static constexpr int64_t kIdle = -1;

  std::atomic<int64_t> step = kIdle;  // StepPlan::step, or kIdle between steps.
  std::atomic<int> layer = 0;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_STEP_PROGRESS_H_
