#include "worker/engine/split_log.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;

constexpr SequenceId kSequence = 5;
constexpr int kPrompt = 4096;

class SplitLogTest : public ::testing::Test {
 protected:
  void Round(int start, std::vector<int> ends,
             SequenceId sequence = kSequence) {
    StepPlan plan;
    plan.layout = Layout::kTokenSplit;
    plan.range_ends = ends;
    log_.AddStep(plan,
                 {.sequence = sequence,
                  .start = start,
                  .num_tokens = ends.back() - start},
                 kPrompt, reports_);
  }

  void Chunk(int start, int tokens, int prompt = kPrompt) {
    log_.AddStep(StepPlan(),
                 {.sequence = kSequence, .start = start, .num_tokens = tokens},
                 prompt, reports_);
  }

  std::vector<StepReport> reports_ = {{.compute = absl::Seconds(3),
                                       .transfer = absl::Seconds(1),
                                       .received_bytes = 100},
                                      {.compute = absl::Seconds(1),
                                       .transfer = absl::Seconds(2),
                                       .received_bytes = 300}};
  SplitLog log_{2};
};

TEST_F(SplitLogTest, HasNoPromptAtFirst) {
  EXPECT_EQ(log_.last().prompt_tokens, 0);
}

TEST_F(SplitLogTest, AddsUpRoundsAndSteps) {
  Round(0, {1088, 2048});
  Round(2048, {3008, 3968});
  Chunk(3968, 128);
  const PromptSplit& split = log_.last();
  EXPECT_EQ(split.prompt_tokens, kPrompt);
  EXPECT_EQ(split.computed_tokens, kPrompt);
  EXPECT_EQ(split.token_split_rounds, 2);
  EXPECT_EQ(split.token_split_tokens, 3968);
  EXPECT_EQ(split.head_split_steps, 1);
  EXPECT_THAT(split.received_bytes, ElementsAre(300, 900));
  EXPECT_THAT(split.seconds, DoubleEq(12));
  EXPECT_THAT(split.transfer_seconds, DoubleEq(4.5));
}

TEST_F(SplitLogTest, KeepsTheRangesOfTheLargestRound) {
  Round(0, {1088, 2048});
  Round(2048, {3008, 3968});
  EXPECT_THAT(log_.last().range_tokens, ElementsAre(1088, 960));
}

TEST_F(SplitLogTest, ComparesTheSlowestRankWithTheMean) {
  Round(0, {1088, 2048});
  EXPECT_THAT(log_.last().measured_balance, DoubleEq(1.5));
  EXPECT_THAT(MeasuredBalance(reports_), DoubleEq(1.5));
}

TEST_F(SplitLogTest, LeavesShortPromptsOut) {
  Chunk(0, 128, SplitLog::kLongPromptTokens - 1);
  EXPECT_EQ(log_.last().prompt_tokens, 0);
}

TEST_F(SplitLogTest, KeepsTwoPromptsApart) {
  Round(0, {1088, 2048}, 1);
  Round(0, {512, 1024}, 2);
  EXPECT_EQ(log_.last().token_split_rounds, 1);
  Round(2048, {3008, 3968}, 1);
  EXPECT_EQ(log_.last().token_split_rounds, 2);
}

TEST_F(SplitLogTest, ForgetsASequenceThatIsGone) {
  Round(0, {1088, 2048});
  log_.Forget(kSequence);
  Round(0, {1088, 2048});
  EXPECT_EQ(log_.last().token_split_rounds, 1);
}

TEST_F(SplitLogTest, CountsOnlyTheLastRunOfAPreemptedPrompt) {
  Round(0, {1088, 2048});
  Round(2048, {3008, 3968});
  log_.AddOverLimit();
  Round(0, {512, 1024});
  const PromptSplit& split = log_.last();
  EXPECT_EQ(split.computed_tokens, 1024);
  EXPECT_EQ(split.token_split_rounds, 1);
  EXPECT_EQ(split.token_split_tokens, 1024);
  EXPECT_EQ(split.rounds_over_limit, 0);
  EXPECT_THAT(split.range_tokens, ElementsAre(512, 512));
  EXPECT_THAT(split.received_bytes, ElementsAre(100, 300));
  EXPECT_THAT(split.seconds, DoubleEq(4));
}

TEST_F(SplitLogTest, CountsRoundsOverTheLimit) {
  Round(0, {1088, 2048});
  log_.AddOverLimit();
  Round(2048, {3008, 3968});
  EXPECT_EQ(log_.last().rounds_over_limit, 1);
}

}  // namespace
}  // namespace lapidary
