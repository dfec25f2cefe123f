#include "worker/schedule/step_plan.h"

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
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

void ExpectRefused(const StepPlan& plan, absl::string_view what) {
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(plan)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(std::string(what))));
}

TEST(StepPlanTest, SurvivesTheWire) {
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(Example())),
              IsOkAndHolds(Example()));
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan({})), IsOkAndHolds(StepPlan()));
}

TEST(StepPlanTest, CarriesTheLayout) {
  StepPlan plan = Example();
  plan.layout = Layout::kTokenSplit;
  EXPECT_THAT(DecodeStepPlan(EncodeStepPlan(plan)), IsOkAndHolds(plan));
}

TEST(StepPlanTest, IsLittleEndian) {
  const std::string bytes = EncodeStepPlan(Example());
  EXPECT_EQ(bytes.substr(0, 4), "LSP1");
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
    EXPECT_THAT(DecodeStepPlan(absl::string_view(bytes).substr(0, size)),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << size;
  }
  EXPECT_THAT(DecodeStepPlan(bytes + '\0'),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(StepPlanTest, RefusesCountsThatWouldNeedAllMemory) {
  std::string bytes = EncodeStepPlan({});
  for (size_t i = 16; i < bytes.size(); ++i) bytes[i] = '\xff';
  EXPECT_THAT(DecodeStepPlan(bytes),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(StepPlanTest, RefusesAnotherFormat) {
  std::string bytes = EncodeStepPlan(Example());
  bytes[3] = '2';
  EXPECT_THAT(DecodeStepPlan(bytes),
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

TEST(StepPlanTest, RefusesNegativeIds) {
  StepPlan plan = Example();
  plan.tokens[1] = -5;
  ExpectRefused(plan, "token -5");
  plan = Example();
  plan.global_pages[3] = kNoPage;
  ExpectRefused(plan, "global page -1");
  plan = Example();
  plan.window_pages[0] = -2;
  ExpectRefused(plan, "window page -2");
}

// Whatever the bytes are, what is accepted encodes to the same bytes again.
TEST(StepPlanTest, AcceptsOnlyWhatItWouldWrite) {
  std::minstd_rand random(1);
  const std::string good = EncodeStepPlan(Example());
  for (int run = 0; run < 20000; ++run) {
    std::string bytes = good;
    for (int i = 0; i < 3; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const absl::StatusOr<StepPlan> plan = DecodeStepPlan(bytes);
    if (plan.ok()) {
      EXPECT_EQ(EncodeStepPlan(*plan), bytes);
    }
  }
}

}  // namespace
}  // namespace lapidary
