#include "worker/cache/memory_plan.h"

#include <cstdint>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/cache/kv_cache.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

// Gemma 4 12B in bf16: 8 global layers of 640 values a token, 40 window layers
// of 8 heads with 256 values for keys and for values.
constexpr int64_t kGlobalPageBytes = 8 * 64 * 640 * 2;
constexpr int64_t kWindowPageBytes = 40 * 8 * 64 * (256 + 256) * 2;

MemoryPlanOptions Options12B(int64_t kv_memory_bytes) {
  return {.kv_memory_bytes = kv_memory_bytes,
          .global_page_bytes = kGlobalPageBytes,
          .window_page_bytes = kWindowPageBytes,
          .num_ranks = 1,
          .window = 1024,
          .max_sequences = 64,
          .max_step_tokens = 512,
          .max_context_tokens = 262144};
}

// Pages of one byte: sizes are counts.
MemoryPlanOptions Small(int64_t pages) {
  return {.kv_memory_bytes = pages,
          .global_page_bytes = 1,
          .window_page_bytes = 1,
          .num_ranks = 1,
          .window = 128,
          .max_sequences = 4,
          .max_step_tokens = 128,
          .max_context_tokens = 640};
}

TEST(MemoryPlanTest, HoldsOneWholeContextBeforeMoreSequences) {
  const MemoryPlan plan = PlanMemory(Options12B(4 * kGiB)).value();
  EXPECT_EQ(plan.max_sequence_tokens, 262144);
  EXPECT_GE(plan.context_tokens, 262144);
  EXPECT_GT(plan.num_windows, 1);
  EXPECT_LE(plan.bytes, 4 * kGiB);
}

TEST(MemoryPlanTest, GivesShortMemoryToOneSequence) {
  const MemoryPlan plan = PlanMemory(Options12B(1 * kGiB)).value();
  EXPECT_EQ(plan.num_windows, 1);
  EXPECT_EQ(plan.window_pages, 17 + 8);  // A window, and a step's chunk.
  EXPECT_EQ(plan.max_sequence_tokens, 53632);
  EXPECT_EQ(plan.context_tokens, 53632);
}

TEST(MemoryPlanTest, SharesTheRestBetweenTheFamilies) {
  const MemoryPlan plan = PlanMemory(Options12B(40 * kGiB)).value();
  const int64_t one_context = 4096 * kGlobalPageBytes;
  const int64_t rest = 40 * kGiB - one_context - 25 * kWindowPageBytes;
  EXPECT_NEAR((plan.window_pages - 25) * kWindowPageBytes, rest / 2,
              17 * kWindowPageBytes);
  EXPECT_GT(plan.bytes, 40 * kGiB - 17 * kWindowPageBytes);
}

TEST(MemoryPlanTest, TakesNoMoreThanCanBeUsed) {
  const MemoryPlan plan = PlanMemory(Small(1000)).value();
  EXPECT_EQ(plan.num_windows, 4);
  EXPECT_EQ(plan.window_pages, 4 * 3 + 2);
  EXPECT_EQ(plan.global_pages_per_rank, 4 * 10);
  EXPECT_EQ(plan.bytes, 54);
}

TEST(MemoryPlanTest, GivesContextWhatWindowsCannotUse) {
  // 5 + 10 pages for the first; 25 are left.  All windows need 9 more.
  const MemoryPlan plan = PlanMemory(Small(40)).value();
  EXPECT_EQ(plan.num_windows, 4);
  EXPECT_EQ(plan.window_pages, 14);
  EXPECT_EQ(plan.global_pages_per_rank, 26);
}

TEST(MemoryPlanTest, GivesWindowsWhatContextCannotUse) {
  MemoryPlanOptions options = Small(400);
  options.window_page_bytes = 28;  // Half of what is left is not quite enough.
  const MemoryPlan plan = PlanMemory(options).value();
  EXPECT_EQ(plan.global_pages_per_rank, 40);
  EXPECT_EQ(plan.num_windows, 3);
}

TEST(MemoryPlanTest, ShortensTheChunksOfVeryShortMemory) {
  const MemoryPlan plan = PlanMemory(Small(5)).value();
  EXPECT_EQ(plan.window_pages, 3);
  EXPECT_EQ(plan.global_pages_per_rank, 2);
  EXPECT_EQ(plan.max_sequence_tokens, 128);
}

TEST(MemoryPlanTest, SaysWhatTheShortestSequenceNeeds) {
  EXPECT_THAT(
      PlanMemory(Options12B(kGiB / 4)),
      StatusIs(absl::StatusCode::kResourceExhausted,
               "a sequence of 1024 tokens needs 350.00 MiB of key/value "
               "memory (17 window pages of 20.00 MiB, 16 global pages of "
               "640.00 KiB), there is 256.00 MiB"));
  EXPECT_THAT(PlanMemory(Small(4)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("a sequence of 128 tokens")));
}

TEST(MemoryPlanTest, DividesTheContextByTheRanks) {
  MemoryPlanOptions options = Small(1000);
  options.num_ranks = 4;
  const MemoryPlan plan = PlanMemory(options).value();
  EXPECT_EQ(plan.global_pages_per_rank, 4 * 3);  // 10 pages: 3, 3, 2, 2.
  EXPECT_EQ(plan.context_tokens, 12 * 4 * kPageTokens);
}

TEST(MemoryPlanTest, PlansAModelWithoutWindowLayers) {
  MemoryPlanOptions options = Small(30);
  options.window_page_bytes = 0;
  const MemoryPlan plan = PlanMemory(options).value();
  EXPECT_EQ(plan.num_windows, 4);
  EXPECT_EQ(plan.global_pages_per_rank, 30);
}

TEST(MemoryPlanTest, RefusesSizesThatAreNotPositive) {
  EXPECT_THAT(PlanMemory(Small(0)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(PlanMemory({}), StatusIs(absl::StatusCode::kInvalidArgument));
}

// Whatever is planned, a sequence of the promised length fits.
TEST(MemoryPlanTest, KeepsItsPromise) {
  for (const int window : {1, 2, 63, 64, 65, 96, 100, 512, 1024}) {
    for (const int ranks : {1, 2, 3}) {
      for (int64_t pages = 1; pages < 120; ++pages) {
        MemoryPlanOptions options = Small(pages);
        options.window = window;
        options.num_ranks = ranks;
        options.max_context_tokens = 1000;
        const auto plan = PlanMemory(options);
        if (!plan.ok()) continue;
        EXPECT_LE(plan->bytes, pages);
        const KvCache cache(
            {.num_ranks = ranks,
             .global_pages_per_rank = plan->global_pages_per_rank,
             .window_pages = plan->window_pages,
             .window = window});
        EXPECT_TRUE(cache.CanEverFit(plan->max_sequence_tokens))
            << "window " << window << ", " << ranks << " ranks, " << pages;
      }
    }
  }
}

TEST(MemoryPlanTest, PrintsForPeople) {
  EXPECT_EQ(PlanMemory(Options12B(kGiB))->Summary(),
            "1023.75 MiB of key/value memory a rank: 838 global pages (53632 "
            "tokens of context in all, 53632 in one sequence), 25 window pages "
            "(whole windows: 1)");
}

}  // namespace
}  // namespace lapidary
