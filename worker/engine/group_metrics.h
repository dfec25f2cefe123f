// The metrics of a rank as a part of its group; docs/metrics.md lists them.

#ifndef WORKER_ENGINE_GROUP_METRICS_H_
#define WORKER_ENGINE_GROUP_METRICS_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "common/metrics.h"
#include "worker/engine/step_report.h"
#include "worker/parallel/transfer_counters.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// `metrics` must outlive it.  Used by the rank's engine thread, and before that
// thread has started by another.
class GroupMetrics {
 public:
  explicit GroupMetrics(Metrics& metrics);

  // A step that this rank has run, as it reports it.
  void CountStep(const StepPlan& plan, const StepReport& report);
  // All that this rank has moved so far.
  void CountTransfers(const TransferCounters& counters);
  // What the rank's collective holds for them; nothing is shown of 0 bytes.
  void SetExchangeMemory(int64_t bytes);
  // Measured when the rank started.
  void SetRates(const RankRates& rates);

  // The leader's alone.
  // Slowest rank / mean rank of the last round: as planned, and as it was.
  void SetBalance(double planned, double measured);
  void CountStepsOverDeadline(int64_t steps);
  void SetReplicaPages(int used, int total);

 private:
  // Of one operation for one kind of layer.
  struct Transfers {
    Counter* calls = nullptr;  // Null until there was one.
    Counter* sent_bytes = nullptr;
    Counter* received_bytes = nullptr;
    Counter* seconds = nullptr;
  };

  void Add(CollectiveKind kind, Traffic traffic, const TransferCount& before,
           const TransferCount& now);
  void AddCounters(CollectiveKind kind, Traffic traffic, Transfers& transfers);

  Metrics& metrics_;
  std::array<Counter*, 2> steps_;            // By Layout.
  std::array<Counter*, 2> compute_seconds_;  // Likewise.
  std::array<std::array<Transfers, kNumTraffics>, kNumCollectiveKinds>
      transfers_;
  TransferCounters counted_;
  Gauge* exchange_memory_ = nullptr;  // Made when there is some.
  // The leader's; made when first set.
  Gauge* planned_balance_ = nullptr;
  Gauge* measured_balance_ = nullptr;
  Counter* steps_over_deadline_ = nullptr;
  Gauge* used_replica_pages_ = nullptr;
  Gauge* free_replica_pages_ = nullptr;
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_GROUP_METRICS_H_
