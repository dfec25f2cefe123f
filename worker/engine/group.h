// How the ranks of a group run a step together.
//
//   leader     Plan ─► frame ──┬─► forward ─► reports ◄─┐ ─► logits
//   followers                  └─► forward ─► report ───┘    again, until
//   Stop()
//
// A follower does what the frames say, and holds no queue.  While it waits for
// one it waits for ever; in a step every rank has until the step's time limit.
// Whatever fails on a rank ends the group: the rank's engine returns the error,
// whoever owns it ends the process, and the others miss it.

#ifndef WORKER_ENGINE_GROUP_H_
#define WORKER_ENGINE_GROUP_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "kernels/tensor.h"
#include "worker/engine/step_pace.h"
#include "worker/engine/step_report.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/step_progress.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// The model on this rank: logits [plan.logit_rows, vocab_size] fp32 on the
// leader, valid and writable until the next call.
using Forward = std::function<absl::StatusOr<Tensor>(const StepPlan& plan)>;

// What a step gives on the leader.  Valid until the next one.
struct StepResult {
  Tensor logits;
  std::span<const StepReport> reports;  // By rank.
};

// A step may take the more of kLeastStepTime and kStepTimeFactor times what was
// planned; then it is lost.
inline constexpr absl::Duration kLeastStepTime = absl::Seconds(5);
inline constexpr int kStepTimeFactor = 4;

absl::Duration StepTimeLimit(absl::Duration planned);

// Bytes of a step plan at most.
inline constexpr int64_t kMaxPlanBytes = int64_t{64} << 20;

// What a rank has and what it tells; all outlive the group.
struct RankParts {
  Collective& collective;
  Forward forward;
  StepProgress& progress;  // Told the step that runs.
  Clock& clock;
  // Told each step, and the time that it may take; both may be null.
  std::function<void(int64_t step, absl::Duration limit)> on_step_begin;
  std::function<void()> on_step_end;
};

// Rank 0's part.  Owned by the engine's thread.
class GroupLeader {
 public:
  explicit GroupLeader(RankParts parts);

  // Runs `plan` on all ranks.  Its time limit follows from plan.planned_time,
  // and from how much longer the last steps took than was planned.
  //
  // Errors: the model's, the collective's; INVALID_ARGUMENT if a rank's report
  // is garbage, naming the rank.  The group cannot go on then.
  absl::StatusOr<StepResult> Run(const StepPlan& plan);

  // Ends the followers' Follow().  Does nothing after an error.
  absl::Status Stop();

 private:
  absl::StatusOr<StepResult> RunStep(const StepPlan& plan);
  absl::Status CollectReports(const StepReport& ours);

  const RankParts parts_;
  StepPace pace_;
  StepPlan paced_;  // What the followers are sent.
  absl::Status failure_;
  std::vector<StepReport> reports_;
  std::vector<StepReportBytes> report_bytes_;
};

// Another rank's part: runs what the leader says until its Stop().  Calls
// `on_step` after each step.
//
// Errors: the model's, the collective's; INVALID_ARGUMENT if what came is no
// frame, or a plan beyond `limits`.
absl::Status Follow(
    const RankParts& parts, const PlanLimits& limits,
    const std::function<void(const StepPlan&, const StepReport&)>& on_step);

}  // namespace lapidary

#endif  // WORKER_ENGINE_GROUP_H_
