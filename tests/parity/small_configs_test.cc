// Configs that no stored reference covers: other head counts, dims, windows,
// layer patterns and vocabularies, against a model in doubles.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/random_config.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/test_checkpoint.h"
#include "tools/sequence_driver.h"
#include "worker/model/loaded_model.h"

namespace lapidary {
namespace {

class SmallConfigsTest : public ::testing::TestWithParam<int> {
 protected:
  SmallConfigsTest() {
    const std::string config_path = ::testing::TempDir() + "/small_config.json";
    std::ofstream(config_path) << ConfigJson(config_);
    checkpoint_dir_ = WriteTestCheckpoint("small", config_path, GetParam());
    const int last = static_cast<int>(tokens_.size()) - 1;
    positions_ = {0, 63, 64, config_.window - 1, config_.window, 200, last};
    std::sort(positions_.begin(), positions_.end());
    positions_.erase(std::unique(positions_.begin(), positions_.end()),
                     positions_.end());
  }

  // Logits at positions_, one after the other.
  std::vector<std::vector<float>> Run(DType compute, int chunk) {
    const int size = static_cast<int>(tokens_.size());
    const auto model = LoadedModel::Load({.model_dir = checkpoint_dir_,
                                          .image_dir = checkpoint_dir_,
                                          .compute = compute,
                                          .cpu = {},
                                          .max_step_tokens = size});
    EXPECT_OK(model);
    const auto driver = SequenceDriver::Create(
        **model, {.max_tokens = size, .max_step_tokens = size});
    EXPECT_OK(driver);
    SequenceDriver::Sequence sequence = (*driver)->NewSequence(tokens_);
    std::vector<std::vector<float>> result;
    EXPECT_OK((*driver)->Prefill(
        sequence, chunk, positions_, [&](int, std::span<const float> logits) {
          result.emplace_back(logits.begin(), logits.end());
        }));
    return result;
  }

  const SmallConfig config_ = RandomConfig(GetParam());
  // Past the window and some pages, in any case past 300 tokens.
  const std::vector<TokenId> tokens_ =
      RandomTokens(config_, std::max(300, config_.window + 90), GetParam());
  std::vector<int> positions_;
  std::string checkpoint_dir_;
};

INSTANTIATE_TEST_SUITE_P(Seeds, SmallConfigsTest, ::testing::Range(1, 41));

TEST_P(SmallConfigsTest, MatchesTheModelInDoubles) {
  SCOPED_TRACE(ConfigJson(config_));
  const auto weights = ReadReferenceWeights(checkpoint_dir_);
  ASSERT_OK(weights);
  const auto expected = ReferenceLogits(config_, *weights, tokens_, positions_);
  const auto logits = Run(DType::kF32, static_cast<int>(tokens_.size()));
  ASSERT_EQ(logits.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    double max_error = 0;
    for (size_t v = 0; v < expected[i].size(); ++v) {
      const double error = std::abs(expected[i][v] - logits[i][v]);
      max_error = error <= max_error ? max_error : error;  // NaN stays.
    }
    EXPECT_LE(max_error, 2e-3) << "at position " << positions_[i];
  }
}

TEST_P(SmallConfigsTest, DoesNotDependOnChunks) {
  SCOPED_TRACE(ConfigJson(config_));
  for (const DType compute : {DType::kF32, DType::kBf16}) {
    const auto whole = Run(compute, static_cast<int>(tokens_.size()));
    for (const int chunk : {17, 64, 100}) {
      EXPECT_TRUE(Run(compute, chunk) == whole) << "in chunks of " << chunk;
    }
  }
}

}  // namespace
}  // namespace lapidary
