// A worker process: a group of one rank, from its options to its end.
//
//   model directory ─► LoadedModel ─┐
//   --kv-memory ─► MemoryPlan ──────┴► Engine ─► WorkerServer
//                                        └─► metrics page

#ifndef WORKER_WORKER_H_
#define WORKER_WORKER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/process.h"
#include "worker/cache/memory_plan.h"
#include "worker/engine/engine.h"
#include "worker/engine/state_board.h"
#include "worker/metrics.h"
#include "worker/model/loaded_model.h"
#include "worker/rpc/worker_server.h"
#include "worker/worker_options.h"

namespace lapidary {

// Owned by main()'s thread.
class Worker {
 public:
  // Loads the model and serves it.  Logs what it finds and plans.  `waiter`
  // must outlive the worker.
  //
  // Errors: those of the options, of loading, of memory and of the addresses;
  // each says what was needed and what was there.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(
      const WorkerOptions& options, ShutdownWaiter& waiter);
  ~Worker();

  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Serves until a signal or a Drain() and what runs then has finished.  After
  // a second signal or options.drain_timeout the rest is cancelled.
  //
  // Errors: that of a step that failed; DEADLINE_EXCEEDED if a step does not
  // end, and then the destructor would not, either.
  absl::Status Serve();

 private:
  Worker(const WorkerOptions& options, ShutdownWaiter& waiter);

  absl::Status LoadModel();
  absl::Status PlanKvMemory();
  void StartEngine();
  absl::Status StartServer();
  absl::Status WritePortFile() const;
  // Waits for the engine after a first signal.  False if it does not stop.
  bool FinishInTime();

  const WorkerOptions options_;
  ShutdownWaiter& waiter_;
  SystemClock clock_;
  Metrics metrics_registry_;
  WorkerMetrics metrics_;
  StateBoard board_;
  std::unique_ptr<MetricsPage> metrics_page_;
  std::unique_ptr<LoadedModel> model_;  // Used by the engine's thread.
  MemoryPlan plan_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerServer> server_;
};

}  // namespace lapidary

#endif  // WORKER_WORKER_H_
