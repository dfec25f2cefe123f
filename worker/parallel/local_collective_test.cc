#include "worker/parallel/local_collective.h"

#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

Tensor View(std::vector<float>& values, int rows) {
  const int cols = static_cast<int>(values.size()) / rows;
  return {values.data(), DType::kF32, rows, cols, cols};
}

Tensor View(std::vector<Bf16>& values, int rows) {
  const int cols = static_cast<int>(values.size()) / rows;
  return {values.data(), DType::kBf16, rows, cols, cols};
}

// Runs `body` as each rank of a group, in a thread each.
void RunRanks(int num_ranks, const std::function<void(Collective&)>& body) {
  LocalGroup group(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] { body(group.rank(rank)); });
  }
  for (std::thread& thread : threads) thread.join();
}

class LocalCollectiveTest : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, LocalCollectiveTest,
                         ::testing::Values(1, 2, 3, 4));

TEST_P(LocalCollectiveTest, KnowsItsRankAndSize) {
  RunRanks(GetParam(), [](Collective& collective) {
    EXPECT_EQ(collective.size(), GetParam());
    EXPECT_LT(collective.rank(), GetParam());
  });
}

TEST_P(LocalCollectiveTest, SumsOverRanks) {
  const int n = GetParam();
  RunRanks(n, [n](Collective& collective) {
    std::vector<float> x = {1.0f * collective.rank(), 1.0f, 2.0f,
                            3.0f * collective.rank(), 0.0f, -1.0f};
    ASSERT_OK(collective.AllReduceSum(Traffic::kHead, View(x, 3)));
    const float ranks = n * (n - 1) / 2;
    EXPECT_THAT(x, ElementsAre(ranks, n, 2 * n, 3 * ranks, 0, -n));
  });
}

// (1e8 + 1) - 1e8 is 0 in fp32, in this order alone.
TEST(LocalCollectiveOrderTest, AddsInTheOrderOfRanks) {
  RunRanks(3, [](Collective& collective) {
    const std::vector<float> by_rank = {1e8f, 1.0f, -1e8f};
    std::vector<float> x = {by_rank[collective.rank()]};
    ASSERT_OK(collective.AllReduceSum(Traffic::kHead, View(x, 1)));
    EXPECT_THAT(x, ElementsAre(0.0f));
  });
}

TEST(LocalCollectiveOrderTest, RoundsBf16SumsOnce) {
  RunRanks(4, [](Collective& collective) {
    const std::vector<float> by_rank = {256.0f, 1.0f, 1.0f, 1.0f};
    std::vector<Bf16> x = {ToBf16(by_rank[collective.rank()])};
    ASSERT_OK(collective.AllReduceSum(Traffic::kHead, View(x, 1)));
    EXPECT_EQ(ToFloat(x[0]), 260.0f);  // 259 to the nearest even.
  });
}

TEST_P(LocalCollectiveTest, SumsAgainAndAgain) {
  const int n = GetParam();
  RunRanks(n, [n](Collective& collective) {
    for (int i = 0; i < 200; ++i) {
      std::vector<float> x(64, 1.0f * i);
      ASSERT_OK(collective.AllReduceSum(Traffic::kHead, View(x, 8)));
      EXPECT_THAT(x, Each(1.0f * i * n));
    }
  });
}

TEST_P(LocalCollectiveTest, GathersInTheOrderOfRanks) {
  const int n = GetParam();
  RunRanks(n, [n](Collective& collective) {
    std::vector<float> x = {10.0f * collective.rank(), 1.0f,
                            20.0f * collective.rank(), 2.0f};
    std::vector<float> out(4 * n);
    ASSERT_OK(
        AllGather(collective, Traffic::kHead, View(x, 2), View(out, 2 * n)));
    for (int rank = 0; rank < n; ++rank) {
      EXPECT_EQ(out[4 * rank], 10.0f * rank);
      EXPECT_EQ(out[4 * rank + 1], 1.0f);
      EXPECT_EQ(out[4 * rank + 2], 20.0f * rank);
    }
  });
}

TEST(LocalCollectiveAbandonTest, TellsTheOthersThatARankIsGone) {
  LocalGroup group(2);
  std::thread waiting([&] {
    std::vector<float> x(4);
    EXPECT_THAT(group.rank(0).AllReduceSum(Traffic::kHead, View(x, 1)),
                StatusIs(absl::StatusCode::kUnavailable));
  });
  group.Abandon();
  waiting.join();
}

}  // namespace
}  // namespace lapidary
