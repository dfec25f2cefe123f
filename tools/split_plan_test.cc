#include "tools/split_plan.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/read_file.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/gemma_config.h"
#include "worker/model/model_shape.h"
#include "worker/parallel/context_split.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kContext = 131072;

// The 12B on H200s with NVLink.
class SplitPlanTest : public ::testing::Test {
 protected:
  SplitPlanTest() {
    const absl::StatusOr<std::string> text =
        ReadFile("tools/testdata/12b.config.json");
    EXPECT_OK(text);
    const absl::StatusOr<GemmaConfig> config =
        ParseGemmaConfig(text.value_or("{}"));
    EXPECT_OK(config);
    options_.shape = ShapeOfModel(*config);
    options_.round_tokens = 8192;
    options_.rates = {.matmul_flops = 711e12,
                      .attention_flops = 569e12,
                      .read_bytes = 4.3e12,
                      .link_bytes = 360e9,
                      .link_latency = absl::Microseconds(20)};
  }

  // So that all ranges of a round are alike, and formulas exact.
  void LetAttentionCostNothing() { options_.rates.attention_flops = 1e30; }

  SplitPlanOptions options_;
};

TEST_F(SplitPlanTest, NeedsNothingOfOthersOnOneRank) {
  const SplitPlan plan = PlanSplit(options_, 1, kContext);
  EXPECT_EQ(plan.num_rounds, 0);
  EXPECT_EQ(plan.num_chunks, kContext / 8192);
  EXPECT_EQ(plan.received_bytes(), 0);
  EXPECT_DOUBLE_EQ(plan.efficiency, 1);
}

TEST_F(SplitPlanTest, ReachesTheGoalForLongPrompts) {
  options_.round_tokens = 1536;
  EXPECT_GE(PlanSplit(options_, 8, 131072).overlapped_efficiency, 0.95);
  EXPECT_GE(PlanSplit(options_, 8, 262144).overlapped_efficiency, 0.95);
}

TEST_F(SplitPlanTest, SaysWhatWaitingInEveryLayerCosts) {
  const SplitPlan plan = PlanSplit(options_, 8, kContext);
  EXPECT_GT(plan.relaxed_efficiency, plan.overlapped_efficiency);
  EXPECT_LE(plan.relaxed_efficiency, 1);
}

TEST_F(SplitPlanTest, ReceivesWhatTheFormulasOfTokenSplitSay) {
  LetAttentionCostNothing();
  const SplitPlan plan = PlanSplit(options_, 8, kContext);
  ASSERT_EQ(plan.num_rounds, 2);
  ASSERT_EQ(plan.num_chunks, 0);
  const ModelShape& shape = options_.shape;
  const int64_t e = options_.activation_bytes;
  // T K d e (N-1) / N, in each global layer.
  EXPECT_EQ(plan.cost.of(Transfer::kRoundKeys).bytes,
            8 * int64_t{kContext} * 1 * 512 * e * 7 / 8);
  // 2 (W-1) K d e a border and round, in each window layer.
  const int64_t border = 40 * 2 * int64_t{1023} * 8 * 256 * e;
  EXPECT_EQ(plan.cost.of(Transfer::kHalo).bytes, 2 * border);
  // As much, for a head of eight.
  EXPECT_EQ(plan.cost.of(Transfer::kWindowTail).bytes, 2 * border / 8);
  EXPECT_EQ(plan.cost.of(Transfer::kReplica).bytes, 0);
  EXPECT_EQ(plan.cost.of(Transfer::kKeys).bytes, 0);
  EXPECT_EQ(plan.cost.of(Transfer::kAllReduce).bytes, 0);
  // One row, at the end.
  EXPECT_EQ(plan.cost.of(Transfer::kFinalStates).bytes, shape.hidden_size * e);
  EXPECT_EQ(plan.cost.of(Transfer::kLogits).bytes,
            int64_t{shape.vocab_size} * 4 * 7 / 8);
}

TEST_F(SplitPlanTest, GathersEarlierKeysInEachRoundWithoutAReplica) {
  LetAttentionCostNothing();
  options_.has_replica = false;
  const SplitPlan plan = PlanSplit(options_, 8, 2 * kContext);
  ASSERT_EQ(plan.num_rounds, 4);
  const GlobalShape shape = {.num_heads = 16,
                             .kv_heads = 1,
                             .head_dim = 512,
                             .key_half = 64,
                             .activation_bytes = 2};
  // 64K, 128K and 192K positions.
  EXPECT_EQ(plan.cost.of(Transfer::kKeys).bytes,
            8 * 6 * KeysTravelBytes(65536, shape, 8));
}

TEST_F(SplitPlanTest, ReducesTwiceALayerUnderHeadSplit) {
  options_.chunk_tokens = 512;
  const SplitPlan plan = PlanSplit(options_, 2, 100);
  ASSERT_EQ(plan.num_chunks, 1);
  EXPECT_EQ(plan.cost.of(Transfer::kAllReduce).bytes,
            2 * 48 * AllReduceBytes(100, 3840, 2, 2));
}

TEST_F(SplitPlanTest, LosesLittleToUnevenRanges) {
  const SplitPlan plan = PlanSplit(options_, 8, kContext);
  EXPECT_GE(plan.balance, 1);
  EXPECT_LE(plan.balance, 1.02);
}

TEST(CheckContextTest, TakesWhatTheModelHasPositionsFor) {
  EXPECT_OK(CheckContext(1, 262144));
  EXPECT_OK(CheckContext(262144, 262144));
}

TEST(CheckContextTest, RefusesMoreAndSaysWhatThereIs) {
  EXPECT_THAT(CheckContext(262145, 262144),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("262144"), HasSubstr("262145"))));
  EXPECT_THAT(CheckContext(0, 262144),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(SplitPlanTest, HidesNoMoreThanItTransfers) {
  options_.rates.link_bytes = 3e9;
  const SplitPlan plan = PlanSplit(options_, 8, kContext);
  const CostModel model = ModelOf(options_, 8);
  EXPECT_GT(plan.hidden_seconds, 0);
  EXPECT_LE(plan.hidden_seconds, plan.transfer_seconds(model));
  EXPECT_GT(plan.overlapped_efficiency, plan.efficiency);
}

}  // namespace
}  // namespace lapidary
