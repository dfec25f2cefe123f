#include "worker/model/rate_probe.h"

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"

namespace lapidary {
namespace {

constexpr int kHidden = 256;
constexpr int kIntermediate = 512;

// A window layer and a global one, with weights of their gate and up alone.
class RateProbeTest : public ::testing::Test {
 protected:
  RateProbeTest() {
    config_.hidden_size = kHidden;
    config_.intermediate_size = kIntermediate;
    config_.num_heads = 4;
    config_.window = 100;
    config_.layers = {{.type = LayerType::kWindow,
                       .head_dim = 64,
                       .num_kv_heads = 2,
                       .key_half = 32},
                      {.type = LayerType::kGlobal,
                       .head_dim = 128,
                       .num_kv_heads = 1,
                       .k_eq_v = true,
                       .key_half = 16}};
    const PackedMatrix matrix = {
        .data = storage_.data(),
        .rows = kIntermediate,
        .cols = kHidden,
        .block_stride = kHidden * PackedMatrix::kBlockRows};
    weights_.layers.resize(config_.layers.size());
    for (LayerWeights& layer : weights_.layers) {
      layer.gate = matrix;
      layer.up = matrix;
    }
    backend_ = NewCpuBackend({.threads = 1}).value();
  }

  std::vector<Bf16> storage_ =
      std::vector<Bf16>(kIntermediate * kHidden, ToBf16(0.5f));
  GemmaConfig config_;
  GemmaWeights weights_;
  std::unique_ptr<Backend> backend_;
};

// Between a slow core under a sanitizer and a fast one: the order of size.
void ExpectPlausible(const RankRates& rates) {
  EXPECT_GT(rates.matmul_flops, 1e6);
  EXPECT_LT(rates.matmul_flops, 1e14);
  EXPECT_GT(rates.attention_flops, 1e6);
  EXPECT_LT(rates.attention_flops, 1e14);
  EXPECT_GT(rates.read_bytes, 1e5);
  EXPECT_LT(rates.read_bytes, 1e13);
}

TEST_F(RateProbeTest, MeasuresBothComputeTypes) {
  for (const DType compute : {DType::kF32, DType::kBf16}) {
    const absl::StatusOr<RankRates> rates =
        MeasureRates(config_, weights_, compute, *backend_);
    ASSERT_OK(rates);
    ExpectPlausible(*rates);
  }
}

TEST_F(RateProbeTest, LeavesTheLinkToOthers) {
  const absl::StatusOr<RankRates> rates =
      MeasureRates(config_, weights_, DType::kBf16, *backend_);
  ASSERT_OK(rates);
  EXPECT_EQ(rates->link_bytes, 0);
  EXPECT_EQ(rates->link_latency, absl::ZeroDuration());
}

TEST_F(RateProbeTest, MeasuresAModelWithoutGlobalLayers) {
  config_.layers.pop_back();
  weights_.layers.pop_back();
  const absl::StatusOr<RankRates> rates =
      MeasureRates(config_, weights_, DType::kF32, *backend_);
  ASSERT_OK(rates);
  ExpectPlausible(*rates);
}

}  // namespace
}  // namespace lapidary
