#include "worker/group_plan.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

RankReport Report(int64_t kv_bytes, int64_t replica_bytes) {
  RankReport report;
  report.host = "north";
  report.device = "1 CPU thread, avx2";
  report.kv_bytes = kv_bytes;
  report.replica_bytes = replica_bytes;
  report.rates = {.matmul_flops = 4e11,
                  .attention_flops = 2e11,
                  .read_bytes = 1e10,
                  .link_bytes = 2e9,
                  .link_latency = absl::Microseconds(40)};
  return report;
}

GroupPlanOptions Options() {
  return {.memory = {.global_page_bytes = 4096,
                     .window_page_bytes = 65536,
                     .window = 1024,
                     .max_sequences = 8,
                     .max_step_tokens = 512,
                     .max_context_tokens = 65536}};
}

TEST(GroupPlanTest, TheSmallestMemoryDecides) {
  const auto small =
      PlanGroup({Report(64 * kMiB, 0), Report(16 * kMiB, 0)}, Options());
  const auto equal =
      PlanGroup({Report(16 * kMiB, 0), Report(16 * kMiB, 0)}, Options());
  ASSERT_OK(small.status());
  ASSERT_OK(equal.status());
  EXPECT_EQ(small->memory.global_pages_per_rank,
            equal->memory.global_pages_per_rank);
}

TEST(GroupPlanTest, TheSlowestRatesDecide) {
  RankReport slow = Report(64 * kMiB, 0);
  slow.rates.matmul_flops = 1e11;
  slow.rates.link_latency = absl::Microseconds(90);
  const auto plan = PlanGroup({Report(64 * kMiB, 0), slow}, Options());
  ASSERT_OK(plan.status());
  EXPECT_EQ(plan->slowest.matmul_flops, 1e11);
  EXPECT_EQ(plan->slowest.read_bytes, 1e10);
  EXPECT_EQ(plan->slowest.link_latency, absl::Microseconds(90));
}

TEST(GroupPlanTest, NamesTheRankWithTooLittleMemory) {
  EXPECT_THAT(
      PlanGroup({Report(64 * kMiB, 0), Report(4096, 0)}, Options()).status(),
      StatusIs(absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("rank 1 (north): "), HasSubstr("needs"),
                     HasSubstr("there is 4.00 KiB"))));
}

TEST(GroupPlanTest, TheReplicaHoldsOnePromptAtMost) {
  const auto plan = PlanGroup(
      {Report(64 * kMiB, 64 * kMiB), Report(64 * kMiB, 64 * kMiB)}, Options());
  ASSERT_OK(plan.status());
  EXPECT_EQ(plan->replica_pages, 1024);
}

TEST(GroupPlanTest, TheReplicaIsAsLargeAsTheSmallestBudget) {
  const auto plan = PlanGroup(
      {Report(64 * kMiB, 64 * kMiB), Report(64 * kMiB, 10 * 4096)}, Options());
  ASSERT_OK(plan.status());
  EXPECT_EQ(plan->replica_pages, 10);
}

TEST(RankReportTest, ComesBackAsItWas) {
  const RankReport report = Report(5 * kMiB, 3);
  const auto decoded = DecodeRankReport(EncodeRankReport(report));
  ASSERT_OK(decoded.status());
  EXPECT_EQ(decoded->host, report.host);
  EXPECT_EQ(decoded->device, report.device);
  EXPECT_EQ(decoded->kv_bytes, report.kv_bytes);
  EXPECT_EQ(decoded->replica_bytes, report.replica_bytes);
  EXPECT_EQ(decoded->rates.link_bytes, report.rates.link_bytes);
  EXPECT_EQ(decoded->rates.link_latency, report.rates.link_latency);
}

TEST(RankReportTest, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(DecodeRankReport("garbage").status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      DecodeRankReport(R"({"host": "a", "device": "b", "kv_bytes": -1})")
          .status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("kv_bytes")));
}

TEST(RankPagesTest, ComeBackAsTheyWere) {
  const RankPages pages = {.global = 5, .window = 6, .replica = 7};
  EXPECT_THAT(DecodeRankPages(EncodeRankPages(pages)), IsOkAndHolds(pages));
  EXPECT_THAT(DecodeRankPages(R"({"global": 1e30})").status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace lapidary
