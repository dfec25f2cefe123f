#include "worker/model/step_batch.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;

std::vector<PageId> Pages(const AttentionSequence& sequence) {
  return {sequence.pages, sequence.pages + sequence.num_pages};
}

// Two sequences: 3 tokens from position 300, and 1 token at position 10.
StepPlan TwoSequences() {
  StepPlan plan;
  plan.sequences.push_back({.sequence = 1,
                            .start = 300,
                            .num_tokens = 3,
                            .first_token = 0,
                            .first_global_page = 0,
                            .num_global_pages = 5,
                            .window_base = 3,
                            .first_window_page = 0,
                            .num_window_pages = 2});
  plan.sequences.push_back({.sequence = 2,
                            .start = 10,
                            .num_tokens = 1,
                            .first_token = 3,
                            .first_global_page = 5,
                            .num_global_pages = 1,
                            .window_base = 0,
                            .first_window_page = 2,
                            .num_window_pages = 1});
  plan.tokens = {70, 71, 72, 80};
  plan.global_pages = {10, 11, 12, 13, 14, 20};
  plan.window_pages = {30, 31, 40};
  return plan;
}

TEST(StepBatchTest, CountsPositionsFromEachStart) {
  StepBatch batch(/*window=*/100, /*rank=*/0, /*num_ranks=*/1);
  const StepPlan plan = TwoSequences();
  batch.Reset(plan);
  EXPECT_THAT(batch.positions(), ElementsAre(300, 301, 302, 10));
}

TEST(StepBatchTest, GivesEachSequenceItsPageTables) {
  StepBatch batch(/*window=*/100, /*rank=*/0, /*num_ranks=*/1);
  const StepPlan plan = TwoSequences();
  batch.Reset(plan);
  const auto& global = batch.global().sequences;
  EXPECT_THAT(Pages(global[0]), ElementsAre(10, 11, 12, 13, 14));
  EXPECT_THAT(Pages(global[1]), ElementsAre(20));
  const auto& window = batch.window().sequences;
  EXPECT_THAT(Pages(window[0]), ElementsAre(30, 31));
  EXPECT_EQ(window[0].first_page, 3);
  EXPECT_THAT(Pages(window[1]), ElementsAre(40));
  EXPECT_EQ(window[1].first_row, 3);
}

TEST(StepBatchTest, StoresAllGlobalKeys) {
  StepBatch batch(/*window=*/3, /*rank=*/0, /*num_ranks=*/1);
  const StepPlan plan = TwoSequences();
  batch.Reset(plan);
  EXPECT_THAT(batch.global().first_positions, ElementsAre(300, 10));
}

TEST(StepBatchTest, StoresWindowKeysThatLaterQueriesSee) {
  const StepPlan plan = TwoSequences();
  // The next query, at 303, sees 303 and W - 1 more.
  StepBatch two(/*window=*/3, /*rank=*/0, /*num_ranks=*/1);
  two.Reset(plan);
  EXPECT_THAT(two.window().first_positions, ElementsAre(301, 10));
  StepBatch none(/*window=*/1, /*rank=*/0, /*num_ranks=*/1);
  none.Reset(plan);
  EXPECT_THAT(none.window().first_positions, ElementsAre(303, 11));
}

TEST(StepBatchTest, HidesGlobalPagesOfOtherRanks) {
  StepBatch batch(/*window=*/100, /*rank=*/1, /*num_ranks=*/2);
  const StepPlan plan = TwoSequences();
  batch.Reset(plan);
  EXPECT_THAT(Pages(batch.global().sequences[0]),
              ElementsAre(kNoPage, 11, kNoPage, 13, kNoPage));
  EXPECT_THAT(Pages(batch.window().sequences[0]), ElementsAre(30, 31));
}

TEST(StepBatchTest, ForgetsTheLastStep) {
  StepBatch batch(/*window=*/100, /*rank=*/0, /*num_ranks=*/1);
  const StepPlan plan = TwoSequences();
  batch.Reset(plan);
  batch.Reset(plan);
  EXPECT_EQ(batch.positions().size(), 4u);
  EXPECT_EQ(batch.window().sequences.size(), 2u);
}

}  // namespace
}  // namespace lapidary
