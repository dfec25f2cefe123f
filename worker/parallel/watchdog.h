// Notices that a rank of the group is lost, and lets all ranks know the cause.
//
// Every rank's watchdog sends a heartbeat a second to the leader's, and that
// one to all (GroupHealth decides).  The first cause ends the group: the leader
// tells it to the others, so that all say the same, and each rank's owner ends
// its process.

#ifndef WORKER_PARALLEL_WATCHDOG_H_
#define WORKER_PARALLEL_WATCHDOG_H_

#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/group_health.h"
#include "worker/parallel/step_progress.h"

namespace lapidary {

// Owns a thread, "watchdog".  Thread-safe.
class Watchdog {
 public:
  // Called at most once, on the watchdog's thread, which then ends.
  using OnFailure = std::function<void(const GroupFailure&)>;

  // `progress` must outlive it.  A group of one has no thread and no failures.
  Watchdog(std::unique_ptr<ControlChannel> channel,
           const StepProgress& progress, const GroupHealthOptions& options,
           OnFailure on_failure);
  // Joins the thread.  Without a Leave() the others see a lost rank.
  ~Watchdog();

  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // The leader's engine: a step has begun that must end within `limit`.  Other
  // ranks' watchdogs ignore both.
  void BeginStep(int64_t step, absl::Duration limit);
  void EndStep();

  // This rank cannot go on: `error` is why.  OnFailure follows within
  // GroupHealthOptions::report_grace, twice, with the cause that all ranks
  // name: another rank's end explains an error of the collective better.
  void Report(const absl::Status& error);

  // This rank goes in good order: nobody misses it, and it misses nobody.  The
  // destructor waits until the others know, for a second at most.
  void Leave();

 private:
  class Loop;

  std::unique_ptr<Loop> loop_;
  std::thread thread_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_WATCHDOG_H_
