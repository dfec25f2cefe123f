#include "worker/parallel/rank_sum.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"

namespace lapidary {
namespace {

using ::testing::Each;

// (1e8 + 1) - 1e8 is 0 in fp32, in this order alone.
TEST(RankSumTest, AddsInTheOrderOfTheParts) {
  const float first = 1e8f;
  const float second = 1.0f;
  const float third = -1e8f;
  float sum = 5.0f;
  const std::vector<const void*> parts = {&first, &second, &third};
  SumInOrder(parts, DType::kF32, 1, &sum);
  EXPECT_EQ(sum, 0.0f);
}

TEST(RankSumTest, RoundsOnceToBf16) {
  const Bf16 large = ToBf16(256.0f);
  const Bf16 one = ToBf16(1.0f);
  Bf16 sum;
  const std::vector<const void*> parts = {&large, &one, &one, &one};
  SumInOrder(parts, DType::kBf16, 1, &sum);
  EXPECT_EQ(ToFloat(sum), 260.0f);  // 259 to the nearest even.
}

TEST(RankSumTest, MayReplaceOneOfTheParts) {
  for (const int size : {1, 15, 1023, 1024, 1025, 5000}) {
    std::vector<float> x(size, 2.0f);
    const std::vector<float> y(size, 3.0f);
    const std::vector<const void*> parts = {y.data(), x.data(), y.data()};
    SumInOrder(parts, DType::kF32, size, x.data());
    EXPECT_THAT(x, Each(8.0f));
  }
}

TEST(RankSumTest, AddsNothingToNothing) {
  const std::vector<const void*> parts = {nullptr, nullptr};
  SumInOrder(parts, DType::kF32, 0, nullptr);
}

}  // namespace
}  // namespace lapidary
