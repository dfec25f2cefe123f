// How long the prefill of one prompt takes on N ranks, on paper.
//
// The steps are those that the scheduler plans for a prompt that runs alone;
// their costs are those of its cost model.

#ifndef TOOLS_SPLIT_PLAN_H_
#define TOOLS_SPLIT_PLAN_H_

#include <cstdint>

#include "absl/status/status.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {

struct SplitPlanOptions {
  ModelShape shape;
  RankRates rates;           // Of every rank.
  int activation_bytes = 2;  // bf16
  int gather_pages = 1024;   // As in GroupShape.
  int round_tokens = 2048;   // Of a rank in a round; a multiple of 64.
  int chunk_tokens = 8192;   // Of a head-split step.
  // Each rank keeps the prompt's global keys; otherwise they are gathered anew
  // in each round.
  bool has_replica = true;
};

struct SplitPlan {
  int num_ranks = 0;
  int context = 0;
  int num_rounds = 0;
  int num_chunks = 0;  // Head-split steps.
  StepCost cost;       // Sums over the steps.
  // All of it one after the other, which is what the scheduler plans with.
  double seconds = 0;
  // Of transfers, as the model starts them (token_split_attention.h): the keys
  // of a round travel while queries are projected, halo and tail while queries
  // are projected and, the tail, while the window layer attends.
  double hidden_seconds = 0;
  // Of rounds: work of the rank that has most / mean.
  double balance = 1;
  // One rank's seconds / N / …
  double efficiency = 1;             // … seconds
  double overlapped_efficiency = 1;  // … without hidden_seconds
  // … and without the time that ranks wait for each other within a round: their
  // work is of one size in all, not in each layer.
  double relaxed_efficiency = 1;

  double transfer_seconds(const CostModel& model) const;
  int64_t received_bytes() const;  // By the rank that receives most.
};

// That a model whose positions end at `max_context` takes a prompt of `context`
// tokens.  Errors: INVALID_ARGUMENT.
absl::Status CheckContext(int context, int max_context);

CostModel ModelOf(const SplitPlanOptions& options, int num_ranks);

// REQUIRES: num_ranks divides the heads (rank_weights.h); context > 0.
SplitPlan PlanSplit(const SplitPlanOptions& options, int num_ranks,
                    int context);

}  // namespace lapidary

#endif  // TOOLS_SPLIT_PLAN_H_
