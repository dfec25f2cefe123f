#include "worker/parallel/local_collective.h"

#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "worker/parallel/testing/collective_contract.h"
#include "worker/parallel/testing/rank_threads.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;

INSTANTIATE_TEST_SUITE_P(Threads, CollectiveContract,
                         ::testing::ValuesIn(Groups({1, 2, 3, 4, 8},
                                                    RunThreads)));

// (1e8 + 1) - 1e8 is 0 in fp32, in this order alone.
TEST(LocalCollectiveTest, AddsInTheOrderOfRanks) {
  RunThreads(3, [](Collective& collective) {
    const std::vector<float> by_rank = {1e8f, 1.0f, -1e8f};
    float x = by_rank[collective.rank()];
    ASSERT_OK(
        collective.AllReduceSum(Traffic::kHead, {&x, DType::kF32, 1, 1, 1}));
    EXPECT_EQ(x, 0.0f);
  });
}

TEST(LocalCollectiveTest, RoundsBf16SumsOnce) {
  RunThreads(4, [](Collective& collective) {
    const std::vector<float> by_rank = {256.0f, 1.0f, 1.0f, 1.0f};
    Bf16 x = ToBf16(by_rank[collective.rank()]);
    ASSERT_OK(
        collective.AllReduceSum(Traffic::kHead, {&x, DType::kBf16, 1, 1, 1}));
    EXPECT_EQ(ToFloat(x), 260.0f);  // 259 to the nearest even.
  });
}

TEST(LocalCollectiveTest, TellsTheOthersThatARankIsGone) {
  LocalGroup group(2);
  std::thread waiting([&] {
    float x = 0;
    EXPECT_THAT(
        group.rank(0).AllReduceSum(Traffic::kHead, {&x, DType::kF32, 1, 1, 1}),
        StatusIs(absl::StatusCode::kUnavailable));
  });
  group.Abandon();
  waiting.join();
}

}  // namespace
}  // namespace lapidary
