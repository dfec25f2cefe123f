#include "worker/engine/step_rates.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(StepRatesTest, KnowsNothingAtFirst) {
  const StepRates rates;
  EXPECT_EQ(rates.prefill_tokens_per_second(), 0);
  EXPECT_EQ(rates.decode_tokens_per_second(), 0);
}

TEST(StepRatesTest, KeepsPrefillAndDecodeApart) {
  StepRates rates;
  rates.Add({.prefill_tokens = 500}, absl::Seconds(1));
  rates.Add({.decode_tokens = 10}, absl::Seconds(2));
  EXPECT_DOUBLE_EQ(rates.prefill_tokens_per_second(), 500);
  EXPECT_DOUBLE_EQ(rates.decode_tokens_per_second(), 5);
}

TEST(StepRatesTest, SharesTheTimeOfAMixedStepByTokens) {
  StepRates rates;
  rates.Add({.prefill_tokens = 90, .decode_tokens = 10}, absl::Seconds(1));
  EXPECT_DOUBLE_EQ(rates.prefill_tokens_per_second(), 100);
  EXPECT_DOUBLE_EQ(rates.decode_tokens_per_second(), 100);
}

TEST(StepRatesTest, ForgetsWhatIsLongAgo) {
  StepRates rates;
  rates.Add({.decode_tokens = 1000}, absl::Seconds(1));
  for (int i = 0; i < 200; ++i) {
    rates.Add({.decode_tokens = 1}, absl::Seconds(1));
  }
  EXPECT_NEAR(rates.decode_tokens_per_second(), 1, 1e-3);
}

}  // namespace
}  // namespace lapidary
