// How prefills go on in a group that knows its costs: in rounds or as chunks of
// head-split steps, how far at a time, and who has the replica.
//
//   streams run    a step with prefill is planned to take the inter-token
//                  deadline at most, or a page if even that takes longer
//   none do        as large as memory and the step's budget allow

#ifndef WORKER_SCHEDULE_PREFILL_PLANNER_H_
#define WORKER_SCHEDULE_PREFILL_PLANNER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/replica.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Thread-compatible.
class PrefillPlanner {
 public:
  // As the scheduler's.
  struct Options {
    std::optional<CostModel> cost_model;
    int max_step_tokens = 0;
    int max_range_tokens = 0;
    int replica_pages = 0;
    absl::Duration inter_token_deadline;
  };

  struct Counts {
    int64_t rounds = 0;
    // Steps with prefill beside streams that were planned to take longer than
    // the deadline, because not even a page keeps to it.
    int64_t over_deadline = 0;
  };

  // Positions [computed, size) of a sequence, which are to be prefilled.
  struct Rest {
    SequenceId sequence = 0;
    int computed = 0;
    int size = 0;
  };

  enum class Streams { kNone, kRunning };

  explicit PrefillPlanner(const Options& options);

  // Whether the group has several ranks, and memory for ranges.
  bool has_rounds() const;

  // What follows is for a step beside `streams`.
  void StartStep(Streams streams);

  // Head-split for a group without rounds.
  PrefillChoice Choose(const Rest& rest) const;
  // A round that ends earlier than Choose() said, as pages are short.
  //
  // REQUIRES: Choose() gave a longer round.
  PrefillChoice RoundTo(const Rest& rest, int end) const;

  struct ChunkEnd {
    int end = 0;  // At least the way to the first page border.
    bool in_time = true;
  };

  // How far a chunk may go on the way to `end` in a step that has `parts`.
  ChunkEnd EndInTime(std::span<const CostModel::Part> parts, const Rest& rest,
                     int end) const;

  // Makes `plan`, which has the tokens of `rest` from computed to the round's
  // end, a round.  The sequence takes the replica if it can have it.
  void WriteRound(const Rest& rest, const PrefillChoice& round, StepPlan& plan);

  // Sets the planned time of a head-split step.
  void WriteTime(std::span<const CostModel::Part> parts, StepPlan& plan) const;

  // Counts a step with prefill that is planned to take too long.
  void CountIfLate(const StepPlan& plan);

  // `plan` has run, and positions [0, computed) of the sequence are computed.
  void Ran(const StepPlan& plan, const Rest& rest);

  // The sequence prefills no longer.
  void Release(SequenceId sequence) { replica_.Release(sequence); }

  const Counts& counts() const { return counts_; }

 private:
  bool HasSeveralRanks() const;
  CostModel::Prefill PrefillOf(const Rest& rest) const;
  CostModel::StepLimits Limits() const;

  const Options options_;
  absl::Duration limit_ = absl::InfiniteDuration();  // Of the step.
  Replica replica_;
  Counts counts_;
};

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_PREFILL_PLANNER_H_
