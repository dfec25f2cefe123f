#include "worker/engine/group_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(GroupMetricsTest, CountsStepsByLayout) {
  Metrics metrics;
  GroupMetrics group(metrics);
  StepPlan plan;
  group.CountStep(plan, {.compute = absl::Seconds(1)});
  plan.layout = Layout::kTokenSplit;
  group.CountStep(plan, {.compute = absl::Seconds(2)});
  group.CountStep(plan, {.compute = absl::Seconds(2)});
  EXPECT_THAT(metrics.Text(),
              HasSubstr("lapidary_worker_steps_total{layout=\"token_split\"} "
                        "2\n"));
  EXPECT_THAT(
      metrics.Text(),
      HasSubstr("lapidary_worker_compute_seconds_total{layout=\"token_split\"} "
                "4\n"));
}

TEST(GroupMetricsTest, CountsWhatIsNewSinceTheLastTime) {
  Metrics metrics;
  GroupMetrics group(metrics);
  TransferCounters counters;
  counters.Add(CollectiveKind::kAllReduce, Traffic::kFeedForward,
               {.calls = 1,
                .bytes_sent = 10,
                .bytes_received = 20,
                .time = absl::Seconds(1)});
  group.CountTransfers(counters);
  group.CountTransfers(counters);
  counters.Add(CollectiveKind::kAllReduce, Traffic::kFeedForward,
               {.calls = 1,
                .bytes_sent = 10,
                .bytes_received = 20,
                .time = absl::Seconds(1)});
  group.CountTransfers(counters);
  EXPECT_THAT(metrics.Text(),
              HasSubstr("lapidary_worker_transfers_total{collective=\"all_"
                        "reduce\",traffic=\"feed_forward\"} 2\n"));
  EXPECT_THAT(
      metrics.Text(),
      HasSubstr("lapidary_worker_transfer_bytes_total{collective=\"all_"
                "reduce\",direction=\"received\",traffic=\"feed_forward\"} "
                "40\n"));
}

TEST(GroupMetricsTest, ShowsNoLinkOfAGroupOfOne) {
  Metrics metrics;
  GroupMetrics group(metrics);
  RankRates rates;
  rates.matmul_flops = 5;
  group.SetRates(rates);
  EXPECT_THAT(metrics.Text(), HasSubstr("lapidary_worker_matmul_flops 5\n"));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("link")));
}

TEST(GroupMetricsTest, ShowsTheMemoryOfExchangesWhereThereIsSome) {
  Metrics metrics;
  GroupMetrics group(metrics);
  group.SetExchangeMemory(0);
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("exchange_memory")));
  group.SetExchangeMemory(4096);
  EXPECT_THAT(metrics.Text(),
              HasSubstr("lapidary_worker_exchange_memory_bytes 4096\n"));
}

TEST(GroupMetricsTest, ShowsTheBalanceOfTheLastRound) {
  Metrics metrics;
  GroupMetrics group(metrics);
  group.SetBalance(1.01, 1.25);
  EXPECT_THAT(metrics.Text(),
              HasSubstr("round_balance_ratio{of=\"measured\"} 1.25\n"));
}

}  // namespace
}  // namespace lapidary
