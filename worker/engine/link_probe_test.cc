#include "worker/engine/link_probe.h"

#include <thread>
#include <vector>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/parallel/local_collective.h"

namespace lapidary {
namespace {

TEST(LinkProbeTest, MeasuresOnAllRanks) {
  constexpr int kRanks = 3;
  LocalGroup group(kRanks);
  SystemClock clock;
  std::vector<absl::StatusOr<LinkRates>> rates(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back(
        [&, rank] { rates[rank] = MeasureLink(group.rank(rank), clock); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::StatusOr<LinkRates>& rate : rates) {
    ASSERT_OK(rate.status());
    EXPECT_GT(rate->bytes, 0);
    EXPECT_GT(rate->latency, absl::ZeroDuration());
  }
}

TEST(LinkProbeTest, AGroupOfOneHasNoLink) {
  LocalGroup group(1);
  SystemClock clock;
  const absl::StatusOr<LinkRates> rates = MeasureLink(group.rank(0), clock);
  ASSERT_OK(rates.status());
  EXPECT_EQ(rates->bytes, 0);
}

TEST(LinkProbeTest, ARankThatIsGoneIsAnError) {
  LocalGroup group(2);
  SystemClock clock;
  group.Abandon();
  EXPECT_THAT(MeasureLink(group.rank(0), clock).status(),
              StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace lapidary
