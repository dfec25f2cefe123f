// What one forward pass of a group computes: the message from the leader's
// scheduler to the model of every rank.

#ifndef WORKER_SCHEDULE_STEP_PLAN_H_
#define WORKER_SCHEDULE_STEP_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/tokens.h"

namespace lapidary {

// A request inside one group.  Never reused while the process lives.
using SequenceId = int64_t;

// How the ranks of a group share a step (architecture: "two layouts").
//
// Head split: every rank computes all tokens with its share of the heads.
// Token split: the step is a round, a range of positions of one sequence, and
// every rank computes its share of them with all heads.
enum class Layout : uint8_t { kHeadSplit, kTokenSplit };

// StepPlan::replica_tokens of a round that uses no replica.
inline constexpr int kNoReplica = -1;

// One sequence's part of a step: positions [start, start + num_tokens).
// Ranges are indices into the flat vectors of the StepPlan.
struct SequenceStep {
  SequenceId sequence = 0;
  int start = 0;
  int num_tokens = 0;
  int first_token = 0;  // In StepPlan::tokens; also its row in the batch.
  // Global pages: logical pages 0 … num_global_pages - 1, all of them.
  int first_global_page = 0;
  int num_global_pages = 0;
  // Window pages: logical pages window_base … window_base + num_window_pages-1.
  // kNoPage where no later step looks.
  int window_base = 0;
  int first_window_page = 0;
  int num_window_pages = 0;

  bool operator==(const SequenceStep&) const = default;
};

struct StepPlan {
  int64_t step = 0;  // Counts up by one.
  Layout layout = Layout::kHeadSplit;
  std::vector<SequenceStep> sequences;
  std::vector<TokenId> tokens;
  std::vector<PageId> global_pages;
  std::vector<PageId> window_pages;
  // Rows (indices into `tokens`) whose logits are wanted, ascending.
  std::vector<int> logit_rows;

  // Token split: rank r computes positions [range_ends[r - 1], range_ends[r]),
  // rank 0 those from the start on.  One end a rank, ascending.
  std::vector<int> range_ends;
  // Token split: the positions from 0 on whose latents each rank's replica
  // holds before the step; it holds all up to the round's end afterwards.
  int replica_tokens = kNoReplica;

  // What the step is expected to take; the watchdog allows a multiple of it.
  absl::Duration planned_time = absl::ZeroDuration();

  bool empty() const { return sequences.empty(); }
  // Empties all vectors and keeps their memory.
  void Clear();

  bool operator==(const StepPlan&) const = default;
};

// What a rank can run: ids and sizes are below these.
struct PlanLimits {
  int num_ranks = 1;
  int vocab_size = 0;
  int global_pages = 0;  // Of each rank.
  int window_pages = 0;
  int max_step_tokens = 0;   // Under head split.
  int max_range_tokens = 0;  // Of a rank under token split; 0: none.
  int replica_pages = 0;
};

// Little-endian bytes, for the broadcast to the ranks.
std::string EncodeStepPlan(const StepPlan& plan);

// Errors: INVALID_ARGUMENT if the bytes are cut short, ranges do not fit, or
// the plan is beyond `limits`.
absl::StatusOr<StepPlan> DecodeStepPlan(absl::string_view bytes,
                                        const PlanLimits& limits);

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_STEP_PLAN_H_
