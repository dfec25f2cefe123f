#include "worker/schedule/prefill_planner.h"

#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/step_plan.h"
#include "worker/schedule/testing/small_costs.h"

namespace lapidary {
namespace {

using Streams = PrefillPlanner::Streams;

PrefillPlanner::Options OptionsFor(int num_ranks) {
  return {.cost_model = SmallCosts(num_ranks, /*window=*/100),
          .max_step_tokens = 128,
          .max_range_tokens = 256,
          .replica_pages = 40,
          .inter_token_deadline = absl::Milliseconds(200)};
}

class PrefillPlannerTest : public ::testing::Test {
 protected:
  // Runs a round of the sequence to its end.
  StepPlan RunRound(PrefillPlanner::Rest rest) {
    const PrefillChoice round = planner_.Choose(rest);
    EXPECT_EQ(round.layout, Layout::kTokenSplit);
    StepPlan plan;
    planner_.WriteRound(rest, round, plan);
    rest.computed += round.num_tokens;
    planner_.Ran(plan, rest);
    return plan;
  }

  PrefillPlanner planner_{OptionsFor(4)};
};

TEST_F(PrefillPlannerTest, HasRoundsOnSeveralRanksOnly) {
  EXPECT_TRUE(planner_.has_rounds());
  EXPECT_FALSE(PrefillPlanner(OptionsFor(1)).has_rounds());
  PrefillPlanner::Options options = OptionsFor(4);
  options.max_range_tokens = 0;
  EXPECT_FALSE(PrefillPlanner(options).has_rounds());
  options = OptionsFor(4);
  options.cost_model.reset();
  EXPECT_FALSE(PrefillPlanner(options).has_rounds());
}

TEST_F(PrefillPlannerTest, KeepsTheDeadlineBesideStreamsOnly) {
  const PrefillPlanner::Rest rest = {.sequence = 1, .computed = 0, .size = 900};
  const PrefillChoice alone = planner_.Choose(rest);
  EXPECT_GT(alone.planned_time, absl::Milliseconds(200));
  planner_.StartStep(Streams::kRunning);
  const PrefillChoice beside = planner_.Choose(rest);
  EXPECT_LE(beside.planned_time, absl::Milliseconds(200));
  EXPECT_LT(beside.num_tokens, alone.num_tokens);
  planner_.StartStep(Streams::kNone);
  EXPECT_EQ(planner_.Choose(rest).num_tokens, alone.num_tokens);
}

TEST_F(PrefillPlannerTest, FillsTheReplicaRoundByRound) {
  PrefillPlanner::Rest rest = {.sequence = 1, .computed = 0, .size = 1200};
  const StepPlan first = RunRound(rest);
  EXPECT_EQ(first.replica_tokens, 0);
  rest.computed = first.range_ends.back();
  EXPECT_EQ(RunRound(rest).replica_tokens, rest.computed);
}

TEST_F(PrefillPlannerTest, LeavesTheReplicaWithItsOwner) {
  RunRound({.sequence = 1, .computed = 0, .size = 1200});
  EXPECT_EQ(
      RunRound({.sequence = 2, .computed = 0, .size = 1200}).replica_tokens,
      kNoReplica);
  planner_.Release(1);
  EXPECT_EQ(
      RunRound({.sequence = 2, .computed = 896, .size = 1200}).replica_tokens,
      0);
}

TEST_F(PrefillPlannerTest, FreesTheReplicaAtTheEndOfThePrompt) {
  RunRound({.sequence = 1, .computed = 0, .size = 700});
  EXPECT_EQ(
      RunRound({.sequence = 2, .computed = 0, .size = 1200}).replica_tokens, 0);
}

TEST_F(PrefillPlannerTest, KeepsWhatTheReplicaHoldsDuringAChunk) {
  PrefillPlanner::Rest rest = {.sequence = 1, .computed = 0, .size = 2000};
  const int held = RunRound(rest).range_ends.back();
  rest.computed = held + 64;
  planner_.Ran(StepPlan(), rest);  // Head-split.
  EXPECT_EQ(RunRound(rest).replica_tokens, held);
}

TEST_F(PrefillPlannerTest, LimitsAChunkBesideStreams) {
  const std::vector<CostModel::Part> streams = {
      {.context = 100, .num_tokens = 1}};
  const PrefillPlanner::Rest rest = {.sequence = 1, .computed = 0, .size = 600};
  EXPECT_EQ(planner_.EndInTime(streams, rest, 512).end, 512);
  planner_.StartStep(Streams::kRunning);
  const PrefillPlanner::ChunkEnd chunk = planner_.EndInTime(streams, rest, 512);
  EXPECT_EQ(chunk.end, 192);
  EXPECT_TRUE(chunk.in_time);
  // 192 tokens of another leave no time.
  const std::vector<CostModel::Part> more = {{.context = 100, .num_tokens = 1},
                                             {.context = 0, .num_tokens = 192}};
  EXPECT_EQ(planner_.EndInTime(more, rest, 512).end, 64);
  EXPECT_FALSE(planner_.EndInTime(more, rest, 512).in_time);
}

TEST_F(PrefillPlannerTest, CountsRoundsAndThoseThatAreLate) {
  RunRound({.sequence = 1, .computed = 0, .size = 1200});
  StepPlan plan;
  plan.planned_time = absl::Milliseconds(201);
  planner_.CountIfLate(plan);
  EXPECT_EQ(planner_.counts().over_deadline, 0);
  planner_.StartStep(Streams::kRunning);
  planner_.CountIfLate(plan);
  EXPECT_EQ(planner_.counts().over_deadline, 1);
  plan.planned_time = absl::Milliseconds(200);
  planner_.CountIfLate(plan);
  EXPECT_EQ(planner_.counts().over_deadline, 1);
  EXPECT_EQ(planner_.counts().rounds, 1);
}

TEST_F(PrefillPlannerTest, PlansTheTimeOfAHeadSplitStep) {
  StepPlan plan;
  const std::vector<CostModel::Part> parts = {{.context = 0, .num_tokens = 64}};
  planner_.WriteTime(parts, plan);
  EXPECT_GT(plan.planned_time, absl::Milliseconds(16));
  PrefillPlanner::Options options = OptionsFor(4);
  options.cost_model.reset();
  PrefillPlanner(options).WriteTime(parts, plan = {});
  EXPECT_EQ(plan.planned_time, absl::ZeroDuration());
}

}  // namespace
}  // namespace lapidary
