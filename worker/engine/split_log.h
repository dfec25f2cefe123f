// How long prompts were split over the ranks, for status.

#ifndef WORKER_ENGINE_SPLIT_LOG_H_
#define WORKER_ENGINE_SPLIT_LOG_H_

#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/group_status.h"
#include "worker/engine/step_report.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Thread-compatible.
class SplitLog {
 public:
  // Shorter prompts are not logged.
  static constexpr int kLongPromptTokens = 1024;

  explicit SplitLog(int num_ranks) : num_ranks_(num_ranks) {}

  // A step has run that computed positions [part.start, …) of a prompt of
  // `prompt_tokens`.  `reports` by rank.  What a step moved for several
  // sequences counts for each of them.  A sequence that was preempted is
  // computed again from position 0: its last run counts.
  void AddStep(const StepPlan& plan, const SequenceStep& part,
               int prompt_tokens, std::span<const StepReport> reports);
  // The last AddStep()'s step was planned longer than streams should wait.
  void AddOverLimit();
  // The sequence is gone.
  void Forget(SequenceId sequence) { open_.erase(sequence); }

  // Of the long prompt whose step was logged last; prompt_tokens is 0 if there
  // was none.
  const PromptSplit& last() const { return last_; }

 private:
  struct Open {
    PromptSplit split;
    double slowest_seconds = 0;  // Computing in rounds: of the slowest rank,
    double mean_seconds = 0;     // and of the mean.
  };

  void AddRound(const StepPlan& plan, const SequenceStep& part,
                std::span<const StepReport> reports, Open& open) const;

  const int num_ranks_;
  // Long prompts that are not prefilled yet: at most as many as run.
  absl::flat_hash_map<SequenceId, Open> open_;
  SequenceId last_sequence_ = 0;
  PromptSplit last_;
};

// Computing of the slowest rank / of the mean; 1 if none computed.
double MeasuredBalance(std::span<const StepReport> reports);

}  // namespace lapidary

#endif  // WORKER_ENGINE_SPLIT_LOG_H_
