// How much longer steps take than was planned, of late.

#ifndef WORKER_ENGINE_STEP_PACE_H_
#define WORKER_ENGINE_STEP_PACE_H_

#include "absl/time/time.h"

namespace lapidary {

// Rates are measured once, when a rank starts; a machine that is shared may be
// slower later.  A step's time limit has to follow, or a busy machine is taken
// for a stuck rank.
//
// Thread-compatible.
class StepPace {
 public:
  // Shorter steps are mostly latency, and tell nothing of longer ones.
  static constexpr absl::Duration kLeastPlanned = absl::Milliseconds(100);
  static constexpr double kMostSlowdown = 4;

  // A step that was planned to take `planned` took `measured`.
  void Add(absl::Duration planned, absl::Duration measured);

  // 1 … kMostSlowdown: follows a slow step at once, and forgets it over some
  // steps.
  double slowdown() const { return slowdown_; }

 private:
  double slowdown_ = 1;
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_STEP_PACE_H_
