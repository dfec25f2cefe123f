#include "worker/schedule/step_plan.h"

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

// One decoding sequence and a chunk of another one's prompt.
StepPlan Example() {
  StepPlan plan;
  plan.step = 7;
  plan.sequences = {{.sequence = int64_t{1} << 40,
                     .start = 130,
                     .num_tokens = 1,
                     .first_token = 0,
                     .first_global_page = 0,
                     .num_global_pages = 3,
                     .window_base = 1,
                     .first_window_page = 0,
                     .num_window_pages = 2},
                    {.sequence = 2,
                     .start = 0,
                     .num_tokens = 3,
                     .first_token = 1,
                     .first_global_page = 3,
                     .num_global_pages = 1,
                     .window_base = 0,
                     .first_window_page = 2,
                     .num_window_pages = 1}};
  plan.tokens = {262143, 5, 6, 7};
  plan.global_pages = {0, 1, 2, 9};
  plan.window_pages = {kNoPage, 4, 5};
  plan.logit_rows = {0, 3};
  return plan;
}

constexpr PlanLimits kLimits = {.num_ranks = 2,
                                .vocab_size = 262144,
                                .global_pages = 10,
                                .window_pages = 6,
                                .max_step_tokens = 8,
                                .max_range_tokens = 128,
                                .replica_pages = 5};

// A round of 190 tokens on two ranks.
StepPlan ExampleRound() {
  StepPlan plan;
  plan.step = 8;
  plan.layout = Layout::kTokenSplit;
  plan.sequences = {{.sequence = 3,
                     .start = 64,
                     .num_tokens = 190,
                     .num_global_pages = 4,
                     .num_window_pages = 4}};
  plan.tokens.assign(190, 7);
  plan.global_pages = {0, 1, 2, 9};
  plan.window_pages = {kNoPage, 4, 5, 3};
  plan.logit_rows = {189};
  plan.range_ends = {192, 254};
  plan.replica_tokens = 64;
  plan.planned_time = absl::Milliseconds(12.5);
  return plan;
}

void ExpectRefused(const StepPlan& plan, absl::string_view what) {
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(plan), kLimits),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(std::string(what))));
}

TEST(StepPlanTest, SurvivesTheWire) {
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(Example()), kLimits),
              IsOkAndHolds(Example()));
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan({}), kLimits),
              IsOkAndHolds(StepPlan()));
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(ExampleRound()), kLimits),
              IsOkAndHolds(ExampleRound()));
}

TEST(StepPlanTest, IsLittleEndian) {
  const std::string bytes = EncodeStepPlan(Example());
  EXPECT_EQ(bytes.substr(0, 4), "LSP2");
  EXPECT_EQ(bytes.substr(8, 8), std::string("\7\0\0\0\0\0\0\0", 8));
}

TEST(StepPlanTest, ClearEmptiesEverything) {
  StepPlan plan = Example();
  plan.Clear();
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(plan, StepPlan());
}

TEST(StepPlanTest, RefusesEveryShorterPrefix) {
  const std::string bytes = EncodeStepPlan(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(
        DecodeStepPlan(absl::string_view(bytes).substr(0, size), kLimits),
        StatusIs(absl::StatusCode::kInvalidArgument))
        << size;
  }
  EXPECT_THAT(DecodeStepPlan(bytes + '\0', kLimits),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(StepPlanTest, RefusesCountsThatWouldNeedAllMemory) {
  std::string bytes = EncodeStepPlan({});
  for (size_t i = 28; i < bytes.size(); ++i) bytes[i] = '\xff';
  EXPECT_THAT(DecodeStepPlan(bytes, kLimits),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(StepPlanTest, RefusesAnotherFormat) {
  std::string bytes = EncodeStepPlan(Example());
  bytes[3] = '1';
  EXPECT_THAT(DecodeStepPlan(bytes, kLimits),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("magic")));
}

TEST(StepPlanTest, RefusesRangesOutsideTheVectors) {
  StepPlan plan = Example();
  plan.sequences[1].num_tokens = 4;
  ExpectRefused(plan, "tokens [1, +4) of 4");
  plan = Example();
  plan.sequences[1].first_token = -1;
  ExpectRefused(plan, "tokens [-1, +3) of 4");
  plan = Example();
  plan.sequences[1].first_global_page = INT32_MAX;
  ExpectRefused(plan, "global pages [2147483647, +1) of 4");
  plan = Example();
  plan.sequences[0].num_window_pages = -2;
  ExpectRefused(plan, "window pages [0, +-2) of 3");
}

TEST(StepPlanTest, RefusesPositionsWithoutPages) {
  StepPlan plan = Example();
  plan.sequences[0].start = 192;
  ExpectRefused(plan, "positions [192, 193), global pages end at 192");
  plan = Example();
  plan.sequences[0].start = INT32_MAX;
  ExpectRefused(plan, "global pages end at 192");
  plan = Example();
  plan.sequences[0].window_base = 0;
  ExpectRefused(plan, "window pages from 0 to 128");
  plan = Example();
  plan.sequences[0].window_base = 3;
  ExpectRefused(plan, "window pages from 192 to 320");
}

TEST(StepPlanTest, RefusesRowsOutOfOrder) {
  StepPlan plan = Example();
  plan.logit_rows = {3, 3};
  ExpectRefused(plan, "logit row 3 after 3");
  plan.logit_rows = {4};
  ExpectRefused(plan, "logit row 4 after -1, of 4 rows");
}

TEST(StepPlanTest, RefusesTokensOfNobody) {
  StepPlan plan = Example();
  plan.tokens.push_back(8);
  ExpectRefused(plan, "5 tokens, the sequences have 4");
}

TEST(StepPlanTest, RefusesIdsThatDoNotExist) {
  StepPlan plan = Example();
  plan.tokens[1] = -5;
  ExpectRefused(plan, "tokens from 0 to 262144, has -5");
  plan.tokens[1] = 262144;
  ExpectRefused(plan, "tokens from 0 to 262144, has 262144");
  plan = Example();
  plan.global_pages[3] = kNoPage;
  ExpectRefused(plan, "global pages from 0 to 10, has -1");
  plan.global_pages[3] = 10;
  ExpectRefused(plan, "global pages from 0 to 10, has 10");
  plan = Example();
  plan.window_pages[0] = -2;
  ExpectRefused(plan, "window pages from -1 to 6, has -2");
  plan.window_pages[0] = 6;
  ExpectRefused(plan, "window pages from -1 to 6, has 6");
}

TEST(StepPlanTest, RefusesAStepThatIsTooLarge) {
  StepPlan plan = Example();
  plan.sequences[1].num_tokens = 8;
  plan.tokens.resize(9);
  plan.logit_rows = {0};
  ExpectRefused(plan, "at most 8 tokens");
}

TEST(StepPlanTest, RefusesRangesThatAreNotTheRound) {
  StepPlan plan = ExampleRound();
  plan.range_ends = {254};
  ExpectRefused(plan, "one sequence and 2 ranges, has 1 and 1");
  plan = ExampleRound();
  plan.range_ends = {128, 192};
  ExpectRefused(plan, "ranges end at 192, the round at 254");
  plan = ExampleRound();
  plan.range_ends = {63, 254};
  ExpectRefused(plan, "range [64, 63)");
  plan = ExampleRound();
  plan.range_ends = {193, 254};
  ExpectRefused(plan, "range [64, 193) of at most 128");
  plan = Example();
  plan.range_ends = {130};
  ExpectRefused(plan, "1 ranges");
}

TEST(StepPlanTest, RefusesAReplicaThatDoesNotFit) {
  StepPlan plan = ExampleRound();
  plan.replica_tokens = 65;
  ExpectRefused(plan, "replica of 65 tokens");
  plan.replica_tokens = -2;
  ExpectRefused(plan, "replica of -2 tokens");
  plan = Example();
  plan.replica_tokens = 0;
  ExpectRefused(plan, "replica 0");
}

// Whatever the bytes are, what is accepted encodes to the same bytes again.
TEST(StepPlanTest, AcceptsOnlyWhatItWouldWrite) {
  std::minstd_rand random(1);
  const std::string good[] = {EncodeStepPlan(Example()),
                              EncodeStepPlan(ExampleRound())};
  for (int run = 0; run < 20000; ++run) {
    std::string bytes = good[run % 2];
    for (int i = 0; i < 3; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const absl::StatusOr<StepPlan> plan = DecodeStepPlan(bytes, kLimits);
    if (plan.ok()) {
      EXPECT_EQ(EncodeStepPlan(*plan), bytes);
    }
  }
}

}  // namespace
}  // namespace lapidary
