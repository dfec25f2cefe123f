#include "worker/schedule/prefill_planner.h"

namespace lapidary {

PrefillPlanner::PrefillPlanner(const Options& options)
    : options_(options), replica_(options.replica_pages) {}

bool PrefillPlanner::HasSeveralRanks() const {
  return options_.cost_model.has_value() &&
         options_.cost_model->num_ranks() > 1;
}

bool PrefillPlanner::has_rounds() const {
  return HasSeveralRanks() && options_.max_range_tokens > 0;
}

void PrefillPlanner::StartStep(Streams streams) {
  limit_ = HasSeveralRanks() && streams == Streams::kRunning
               ? options_.inter_token_deadline
               : absl::InfiniteDuration();
}

CostModel::Prefill PrefillPlanner::PrefillOf(const Rest& rest) const {
  return {.context = rest.computed,
          .tokens_left = rest.size - rest.computed,
          .replica_tokens = replica_.TokensFor(rest.sequence, rest.size)};
}

CostModel::StepLimits PrefillPlanner::Limits() const {
  return {.max_step_tokens = options_.max_step_tokens,
          .max_range_tokens = options_.max_range_tokens,
          .time = limit_};
}

PrefillChoice PrefillPlanner::Choose(const Rest& rest) const {
  if (!has_rounds()) return {};
  return options_.cost_model->Choose(PrefillOf(rest), Limits());
}

PrefillChoice PrefillPlanner::RoundTo(const Rest& rest, int end) const {
  return options_.cost_model->RoundTo(PrefillOf(rest), end, Limits());
}

PrefillPlanner::ChunkEnd PrefillPlanner::EndInTime(
    std::span<const CostModel::Part> parts, const Rest& rest, int end) const {
  if (limit_ == absl::InfiniteDuration()) return {.end = end};
  const CostModel& model = *options_.cost_model;
  // Every part may want a row of logits.
  const auto num_logit_rows = static_cast<int>(parts.size());
  CostModel::Part chunk = {.context = rest.computed,
                           .num_tokens = end - rest.computed};
  chunk.num_tokens = model.LargestChunk(parts, chunk, num_logit_rows, limit_);
  std::vector<CostModel::Part> step(parts.begin(), parts.end());
  step.push_back(chunk);
  return {.end = rest.computed + chunk.num_tokens,
          .in_time =
              model.Time(model.HeadSplit(step, num_logit_rows + 1)) <= limit_};
}

void PrefillPlanner::WriteRound(const Rest& rest, const PrefillChoice& round,
                                StepPlan& plan) {
  plan.layout = Layout::kTokenSplit;
  plan.range_ends = round.range_ends;
  plan.planned_time = round.planned_time;
  plan.replica_tokens = replica_.TokensFor(rest.sequence, rest.size);
  if (plan.replica_tokens != kNoReplica) replica_.Take(rest.sequence);
  ++counts_.rounds;
}

void PrefillPlanner::WriteTime(std::span<const CostModel::Part> parts,
                               StepPlan& plan) const {
  if (!options_.cost_model.has_value()) return;
  const CostModel& model = *options_.cost_model;
  plan.planned_time = model.Time(
      model.HeadSplit(parts, static_cast<int>(plan.logit_rows.size())));
}

void PrefillPlanner::CountIfLate(const StepPlan& plan) {
  if (plan.planned_time > limit_) ++counts_.over_deadline;
}

void PrefillPlanner::Ran(const StepPlan& plan, const Rest& rest) {
  if (plan.replica_tokens != kNoReplica) {
    replica_.Hold(rest.sequence, rest.computed);
  }
  if (rest.computed == rest.size) Release(rest.sequence);
}

}  // namespace lapidary
