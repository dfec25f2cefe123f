// A worker process: one rank of a group, from its options to its end.
//
//   Rank ─┬─► leader:   Engine ─► GroupLeader     WorkerServer, metrics page
//         └─► follower: Follower                  metrics page
//
// How it ends:
//
//   Drain(), SIGTERM at the leader   what runs is finished, then all ranks stop
//   SIGTERM at a follower            it goes on until the leader stops, for as
//                                    long as draining may take; then it leaves,
//                                    which is a failure of the group
//   a rank fails                     every rank ends with the cause

#ifndef WORKER_WORKER_H_
#define WORKER_WORKER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/process.h"
#include "worker/engine/engine.h"
#include "worker/engine/follower.h"
#include "worker/engine/group.h"
#include "worker/engine/group_metrics.h"
#include "worker/engine/state_board.h"
#include "worker/metrics.h"
#include "worker/parallel/group_health.h"
#include "worker/rank.h"
#include "worker/rpc/worker_server.h"
#include "worker/worker_options.h"

namespace lapidary {

// Owned by main()'s thread.
class Worker {
 public:
  // Loads the model and serves it.  `waiter` must outlive the worker.
  //
  // Errors: those of Rank::Start() and of the addresses; each says what was
  // needed and what was there.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(
      const WorkerOptions& options, ShutdownWaiter& waiter);
  ~Worker();

  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Serves until a signal or a Drain() and what runs then has finished.  After
  // a second signal or options.drain_timeout the rest is cancelled.
  //
  // Errors: why the group failed, one line, and then the destructor may wait
  // for ever.
  absl::Status Serve();

 private:
  Worker(const WorkerOptions& options, ShutdownWaiter& waiter);

  absl::Status StartServing();
  void StartEngine();
  absl::Status StartServer();
  void StartFollower();
  absl::Status WritePortFile() const;
  Scheduler::Options SchedulerOptions() const;

  void OnFailure(const GroupFailure& failure);
  std::optional<GroupFailure> failure() const;

  // After a first signal: an error if the engine does not stop in time.
  absl::Status FinishInTime();
  absl::Status AwaitLeader();
  absl::Status JoinEngine();
  // Ends the group: finds out why it fails, and tells routers.
  absl::Status Fail(const absl::Status& error);
  // Until `timeout` has passed, or all ranks agree on why the group fails.
  void AwaitVerdict(absl::Duration timeout);

  const WorkerOptions options_;
  ShutdownWaiter& waiter_;
  SystemClock clock_;         // Of requests.
  SteadyClock steady_clock_;  // Of steps and exchanges.
  Metrics metrics_registry_;
  GroupMetrics group_metrics_;
  std::unique_ptr<MetricsPage> metrics_page_;
  std::unique_ptr<Rank> rank_;

  // The leader's.
  std::unique_ptr<WorkerMetrics> metrics_;
  StateBoard board_;
  std::unique_ptr<GroupLeader> leader_;  // Used by the engine's thread.
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerServer> server_;

  // The others'.
  std::unique_ptr<Follower> follower_;

  mutable Mutex mutex_;
  std::optional<GroupFailure> failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lapidary

#endif  // WORKER_WORKER_H_
