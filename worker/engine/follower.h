// The engine of a rank that follows: one thread that does what the leader says.

#ifndef WORKER_ENGINE_FOLLOWER_H_
#define WORKER_ENGINE_FOLLOWER_H_

#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "worker/engine/group.h"
#include "worker/engine/group_metrics.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

class Follower {
 public:
  // Starts the thread.  `on_stopped` is its last call.  `metrics` must outlive
  // the follower.
  Follower(RankParts parts, const PlanLimits& limits, GroupMetrics& metrics,
           std::function<void()> on_stopped);
  // Waits until the leader stops or fails.
  ~Follower();

  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // Waits until it has stopped.  OK if the leader said so, else what failed.
  // Call it once.
  absl::Status Join();

 private:
  void Loop();

  const RankParts parts_;
  const PlanLimits limits_;
  GroupMetrics& metrics_;
  const std::function<void()> on_stopped_;
  absl::Status status_;  // Others read it once the thread is joined.
  std::thread thread_;   // Last: it starts when all else is there.
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_FOLLOWER_H_
