// Configs that no stored reference covers: other head counts, dims, windows,
// layer patterns and vocabularies, against a model in doubles.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/test_checkpoint.h"
#include "tools/sequence_driver.h"
#include "worker/model/loaded_model.h"

namespace lapidary {
namespace {

// A small config by seed.
SmallConfig RandomConfig(int seed) {
  std::mt19937 random(seed);
  const auto pick = [&](std::vector<int> values) {
    return values[random() % values.size()];
  };
  SmallConfig config;
  config.hidden_size = pick({48, 64, 80, 112});
  config.intermediate_size = pick({16, 96, 144, 176});
  config.vocab_size = pick({256, 272, 1008});
  config.num_heads = pick({1, 2, 4, 6});
  const auto divisor = [&](int n) {
    return pick({1, n % 2 == 0 ? 2 : 1, n % 3 == 0 ? 3 : n});
  };
  config.num_kv_heads = divisor(config.num_heads);
  config.num_global_kv_heads = divisor(config.num_heads);
  config.head_dim = pick({16, 32, 48, 80});
  config.global_head_dim = pick({16, 32, 64, 96});
  config.window = pick({1, 16, 65, 96, 100, 512});
  config.k_eq_v = pick({0, 1, 1}) == 1;
  config.rotating_part = pick({25, 50, 100}) / 100.0;
  config.softcap = pick({0, 5, 30});
  config.is_global.assign(pick({1, 2, 3, 5}), false);
  for (size_t l = 0; l < config.is_global.size(); ++l) {
    config.is_global[l] = random() % 3 == 0;
  }
  config.is_global.back() = true;
  return config;
}

// Past the window and some pages, in any case past 300 tokens.
std::vector<TokenId> RandomTokens(const SmallConfig& config, int seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(std::max(300, config.window + 90));
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(random() % config.vocab_size);
  }
  return tokens;
}

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
  const std::vector<TokenId> tokens_ = RandomTokens(config_, GetParam());
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
