#include "worker/weights_digest.h"

#include <vector>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

constexpr int kHidden = 32;

class WeightsDigestTest : public ::testing::Test {
 protected:
  WeightsDigestTest() {
    weights_.embedding = weights_.head = Matrix();
    weights_.final_norm = norm_.data();
    weights_.layers.resize(2);
    for (LayerWeights& layer : weights_.layers) {
      layer.input_norm = layer.post_attention_norm = norm_.data();
      layer.pre_feedforward_norm = layer.post_feedforward_norm = norm_.data();
      layer.q = layer.k = layer.o = Matrix();
      layer.gate = layer.up = layer.down = Matrix();
    }
  }

  PackedMatrix Matrix() {
    return {matrix_.data(), kHidden, kHidden, kHidden * 16};
  }

  std::string Digest() const { return DigestOfWeights(weights_, kHidden); }

  std::vector<Bf16> matrix_{kHidden * kHidden};
  std::vector<Bf16> norm_{kHidden};
  GemmaWeights weights_;
};

TEST_F(WeightsDigestTest, IsTheSameForTheSameWeights) {
  EXPECT_EQ(Digest().size(), 32u);
  EXPECT_EQ(Digest(), Digest());
}

TEST_F(WeightsDigestTest, SeesAnotherMatrix) {
  const std::string before = Digest();
  matrix_.back() = ToBf16(1.0f);
  EXPECT_NE(Digest(), before);
}

TEST_F(WeightsDigestTest, SeesAnotherNorm) {
  const std::string before = Digest();
  norm_.front() = ToBf16(1.0f);
  EXPECT_NE(Digest(), before);
}

TEST_F(WeightsDigestTest, SeesAnotherScalar) {
  const std::string before = Digest();
  weights_.layers[1].layer_scalar = 0.5f;
  EXPECT_NE(Digest(), before);
}

}  // namespace
}  // namespace lapidary
