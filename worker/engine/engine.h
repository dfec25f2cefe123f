// The engine of a group: one thread that turns requests into tokens.
//
//   Submit ─► inbox ─► [ Plan ─► forward ─► sample ─► Commit ] ─► outboxes
//                        └───────────── a step ────────────┘
//
// Other threads meet it at the inbox, at their request's outbox, and at the
// state board; scheduler, cache and model are its own.  Without requests it
// waits at the inbox.
//
// It stops for good when it is told to (Drain, Abort) or when a step fails: a
// group is crash-only, and whoever owns the engine ends the process then.

#ifndef WORKER_ENGINE_ENGINE_H_
#define WORKER_ENGINE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "common/clock.h"
#include "common/tokens.h"
#include "kernels/tensor.h"
#include "worker/cache/kv_cache.h"
#include "worker/engine/active_request.h"
#include "worker/engine/group.h"
#include "worker/engine/group_metrics.h"
#include "worker/engine/outbox.h"
#include "worker/engine/split_log.h"
#include "worker/engine/state_board.h"
#include "worker/engine/step_rates.h"
#include "worker/metrics.h"
#include "worker/model/sampler.h"
#include "worker/schedule/scheduler.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Public functions: thread-safe.
class Engine {
 public:
  struct Options {
    Scheduler::Options scheduler;
    KvCache::Options cache;
    int vocab_size = 0;  // Must be set.
  };

  // Runs a step on all ranks of the group.  Called by the engine's thread
  // alone.
  using RunStep =
      std::function<absl::StatusOr<StepResult>(const StepPlan& plan)>;

  // Where the engine tells of itself.
  struct Outlets {
    WorkerMetrics& metrics;
    GroupMetrics& group_metrics;
    StateBoard& board;
  };

  // Starts the thread.  `on_stopped` is its last call.  References must
  // outlive the engine.
  //
  // REQUIRES: options.scheduler.Validate() is OK.
  Engine(const Options& options, RunStep run_step, Clock& clock,
         const Outlets& outlets, std::function<void()> on_stopped);
  // Aborts and waits.
  ~Engine();

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues `request`.  If that succeeds, `outbox` gets all that becomes of it
  // and ends with a Finished, whatever happens.
  //
  // REQUIRES: token ids are in [0, vocab_size); sampling is in range;
  // 0 <= resumed_output_tokens <= prompt.size(); max_tokens is the outbox's.
  // Errors: UNAVAILABLE (draining), RESOURCE_EXHAUSTED (too much waits).  In
  // the outbox also those of Scheduler::Add(), CANCELLED, DEADLINE_EXCEEDED,
  // and UNAVAILABLE if the engine stops.
  //
  // The outbox is shared: with the engine until Finished, with its reader.
  absl::Status Submit(EngineRequest request, std::shared_ptr<Outbox> outbox);

  // Takes no more requests, finishes those it has, and stops.
  void Drain();

  // Takes no more requests, ends those it has with UNAVAILABLE after the
  // current step, and stops.
  void Abort();

  // Waits until it has stopped.  OK after Drain() or Abort(), else the error of
  // the step that failed; the state board is not told of that.  Call it once.
  absl::Status Join();

 private:
  absl::Status Enqueue(EngineRequest request, std::shared_ptr<Outbox> outbox);

  // The engine thread's own.
  void Loop();
  // Waits for a request if there is none.  False when it is time to stop.
  bool TakeRequests();
  void Accept(std::unique_ptr<ActiveRequest> request);
  void EndCancelled();
  absl::Status Step();
  void SampleRows(const StepPlan& plan, Tensor logits);
  void DeliverTokens(absl::Time now);
  void HandleEvents(absl::Time now);
  void ReportProgress(const StepPlan& plan);
  StepSize SizeOf(const StepPlan& plan) const;
  void CountStep(const StepPlan& plan, const StepSize& size,
                 absl::Duration duration);
  // What a step was for the ranks.
  void LogSplit(const StepPlan& plan, std::span<const StepReport> reports);
  void LogRound(const StepPlan& plan, std::span<const StepReport> reports);
  int UsedReplicaPages() const;
  // Tells the state board, the metrics and the readers what has changed.
  void ShowChanges();
  void PublishState();

  // Ends a request and forgets it: `status`, or if that is OK `reason`, is why.
  // Does nothing if it has ended before.
  void End(SequenceId id, absl::Status status, Scheduler::Finish reason);
  void EndAll(const absl::Status& status);

  const Options options_;
  const RunStep run_step_;
  Clock& clock_;
  WorkerMetrics& metrics_;
  GroupMetrics& group_metrics_;
  StateBoard& board_;
  const std::function<void()> on_stopped_;

  BoundedQueue<std::unique_ptr<ActiveRequest>> inbox_;
  std::atomic<int64_t> inbox_tokens_ = 0;  // Prompt tokens in the inbox.
  std::atomic<SequenceId> next_id_ = 1;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> aborting_ = false;

  // The engine thread's own.
  KvCache cache_;
  Scheduler scheduler_;
  Sampler sampler_;
  StepRates rates_;
  SplitLog split_log_;
  int64_t over_deadline_ = 0;  // As counted so far.
  // Who had the replica last, and the positions that it then held.
  SequenceId replica_sequence_ = 0;
  int replica_tokens_ = 0;
  absl::flat_hash_map<SequenceId, std::unique_ptr<ActiveRequest>> requests_;
  std::vector<Scheduler::Event> events_;
  std::vector<SequenceId> ended_;                 // Scratch.
  std::vector<SampledToken> drawn_;               // Of this step, by logit row.
  std::vector<Scheduler::Sampled> sampled_;       // Likewise.
  std::vector<std::shared_ptr<Outbox>> changed_;  // To be notified.
  bool stopped_ = false;
  absl::Status failure_;  // Others read it once the thread is joined.

  std::thread thread_;  // Last: it starts when all else is there.
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_ENGINE_H_
