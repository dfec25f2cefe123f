#include "tools/split_plan.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/parallel/context_split.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

void Add(const StepCost& step, StepCost& sum) {
  sum.matmul += step.matmul;
  sum.window_attention += step.window_attention;
  sum.global_attention += step.global_attention;
  sum.head += step.head;
  sum.busiest_rank += step.busiest_rank;
  for (int i = 0; i < kNumTransfers; ++i) {
    sum.exchanged[i].bytes += step.exchanged[i].bytes;
    sum.exchanged[i].exchanges += step.exchanged[i].exchanges;
  }
}

int ShortestRange(int start, const std::vector<int>& range_ends) {
  int shortest = range_ends.back() - start;
  for (const int end : range_ends) {
    if (end > start) shortest = std::min(shortest, end - start);
    start = end;
  }
  return shortest;
}

// Seconds in which `num_tokens` queries of all layers of a kind are projected.
double QuerySeconds(const SplitPlanOptions& options,
                    const ModelShape::Layers& layers, int num_tokens) {
  return 2.0 * num_tokens * layers.count * options.shape.hidden_size *
         options.shape.num_heads * layers.head_dim / options.rates.matmul_flops;
}

// Of a round's transfers, those that run while the rank with the fewest tokens
// computes.
double HiddenSeconds(const SplitPlanOptions& options, const CostModel& model,
                     const StepCost& round, int num_tokens) {
  const double global_queries =
      QuerySeconds(options, options.shape.global_layers, num_tokens);
  const double window_queries =
      QuerySeconds(options, options.shape.window_layers, num_tokens);
  const double halo = std::min(model.TransferSeconds(round.of(Transfer::kHalo)),
                               window_queries);
  return std::min(model.TransferSeconds(round.of(Transfer::kRoundKeys)),
                  global_queries) +
         halo +
         std::min(model.TransferSeconds(round.of(Transfer::kWindowTail)),
                  window_queries - halo + round.window_attention);
}

// Everything but the efficiency.
SplitPlan PlanSteps(const SplitPlanOptions& options, const CostModel& model,
                    int context) {
  const CostModel::StepLimits limits = {
      .max_step_tokens = options.chunk_tokens,
      .max_range_tokens = model.num_ranks() > 1 ? options.round_tokens : 0};
  SplitPlan plan;
  plan.num_ranks = model.num_ranks();
  plan.context = context;
  CostModel::Prefill prefill;
  double busiest = 0;
  double mean = 0;
  for (int start = 0; start < context;) {
    prefill.context = start;
    prefill.tokens_left = context - start;
    // After a head-split step the replica lacks that step's keys.
    prefill.replica_tokens =
        options.has_replica ? std::max(0, prefill.replica_tokens) : kNoReplica;
    const PrefillChoice choice = model.Choose(prefill, limits);
    const int end = start + choice.num_tokens;
    const int num_logit_rows = end == context ? 1 : 0;
    StepCost step;
    if (choice.layout == Layout::kTokenSplit) {
      step = model.TokenSplit(start, choice.range_ends, prefill.replica_tokens,
                              num_logit_rows);
      ++plan.num_rounds;
      plan.hidden_seconds += HiddenSeconds(
          options, model, step, ShortestRange(start, choice.range_ends));
      busiest += step.busiest_rank;
      mean += step.busiest_rank /
              Balance(start, choice.range_ends, model.token_cost());
      if (options.has_replica) prefill.replica_tokens = end;
    } else {
      const CostModel::Part part = {.context = start,
                                    .num_tokens = choice.num_tokens};
      step = model.HeadSplit({&part, 1}, num_logit_rows);
      ++plan.num_chunks;
    }
    Add(step, plan.cost);
    start = end;
  }
  plan.seconds = plan.cost.compute() + plan.transfer_seconds(model);
  if (mean > 0) plan.balance = busiest / mean;
  return plan;
}

}  // namespace

double SplitPlan::transfer_seconds(const CostModel& model) const {
  double seconds = 0;
  for (const StepCost::Exchanged& exchanged : cost.exchanged) {
    seconds += model.TransferSeconds(exchanged);
  }
  return seconds;
}

int64_t SplitPlan::received_bytes() const {
  int64_t bytes = 0;
  for (const StepCost::Exchanged& exchanged : cost.exchanged) {
    bytes += exchanged.bytes;
  }
  return bytes;
}

absl::Status CheckContext(int context, int max_context) {
  if (context >= 1 && context <= max_context) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--context needs lengths from 1 to the model's max_position_embeddings, ",
      max_context, ", it has ", context));
}

CostModel ModelOf(const SplitPlanOptions& options, int num_ranks) {
  return CostModel(options.shape, options.rates,
                   {.num_ranks = num_ranks,
                    .activation_bytes = options.activation_bytes,
                    .gather_pages = options.gather_pages});
}

SplitPlan PlanSplit(const SplitPlanOptions& options, int num_ranks,
                    int context) {
  const double alone = PlanSteps(options, ModelOf(options, 1), context).seconds;
  SplitPlan plan = PlanSteps(options, ModelOf(options, num_ranks), context);
  plan.efficiency = alone / (num_ranks * plan.seconds);
  const double overlapped = plan.seconds - plan.hidden_seconds;
  const double waiting = plan.cost.compute() - plan.cost.busiest_rank;
  plan.overlapped_efficiency = alone / (num_ranks * overlapped);
  plan.relaxed_efficiency = alone / (num_ranks * (overlapped - waiting));
  return plan;
}

}  // namespace lapidary
