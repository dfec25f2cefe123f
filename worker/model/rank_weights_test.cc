#include "worker/model/rank_weights.h"

#include <vector>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

// h = 32, 4 heads; a window layer (d 16, K 2) and a global one (d 32, K 1).
GemmaConfig SmallConfig() {
  GemmaConfig config;
  config.vocab_size = 128;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_heads = 4;
  config.layers.push_back({.type = LayerType::kWindow,
                           .head_dim = 16,
                           .num_kv_heads = 2,
                           .k_eq_v = false,
                           .key_half = 8});
  config.layers.push_back({.type = LayerType::kGlobal,
                           .head_dim = 32,
                           .num_kv_heads = 1,
                           .k_eq_v = true,
                           .key_half = 4});
  return config;
}

class RankWeightsTest : public ::testing::Test {
 protected:
  RankWeightsTest() {
    weights_.embedding = weights_.head = Matrix(128, 32);
    for (const LayerConfig& layer : config_.layers) {
      LayerWeights w;
      w.q = Matrix(4 * layer.head_dim, 32);
      w.k = Matrix(layer.num_kv_heads * layer.head_dim, 32);
      if (!layer.k_eq_v) w.v = w.k;
      w.o = Matrix(32, 4 * layer.head_dim);
      w.gate = w.up = Matrix(64, 32);
      w.down = Matrix(32, 64);
      weights_.layers.push_back(w);
    }
  }

  PackedMatrix Matrix(int rows, int cols) {
    return {memory_.data(), rows, cols, int64_t{cols} * 16};
  }

  // That `view` shows the block of `whole` from (row, col) on.
  static void ExpectShows(const PackedMatrix& view, const PackedMatrix& whole,
                          int row, int col) {
    const auto address = [](const PackedMatrix& w, int r, int c) {
      return w.data + r / 16 * w.block_stride + c / 2 * 32;
    };
    EXPECT_EQ(address(view, 0, 0), address(whole, row, col));
    EXPECT_EQ(view.block_stride, whole.block_stride);
  }

  const GemmaConfig config_ = SmallConfig();
  std::vector<Bf16> memory_ = std::vector<Bf16>(128 * 128);
  GemmaWeights weights_;
};

TEST_F(RankWeightsTest, OneRankHasEverything) {
  const GemmaWeights mine = WeightsOfRank(config_, weights_, 0, 1);
  EXPECT_EQ(mine.head.rows, 128);
  EXPECT_EQ(mine.layers[0].q.rows, 64);
  EXPECT_EQ(mine.layers[1].down.cols, 64);
}

TEST_F(RankWeightsTest, SplitsWhatHeadsAndColumnsFeed) {
  const GemmaWeights mine = WeightsOfRank(config_, weights_, 1, 2);
  const LayerWeights& layer = mine.layers[0];
  const LayerWeights& whole = weights_.layers[0];
  EXPECT_EQ(layer.q.rows, 32);
  ExpectShows(layer.q, whole.q, 32, 0);
  EXPECT_EQ(layer.v.rows, 16);
  ExpectShows(layer.v, whole.v, 16, 0);
  EXPECT_EQ(layer.o.cols, 32);
  EXPECT_EQ(layer.o.rows, 32);
  ExpectShows(layer.o, whole.o, 0, 32);
  EXPECT_EQ(layer.gate.rows, 32);
  ExpectShows(layer.down, whole.down, 0, 32);
}

TEST_F(RankWeightsTest, KeepsGlobalKeysWhole) {
  const GemmaWeights mine = WeightsOfRank(config_, weights_, 1, 2);
  EXPECT_EQ(mine.layers[1].k.rows, 32);
  ExpectShows(mine.layers[1].k, weights_.layers[1].k, 0, 0);
}

TEST_F(RankWeightsTest, SplitsTheHeadByVocabulary) {
  const GemmaWeights mine = WeightsOfRank(config_, weights_, 1, 2);
  EXPECT_EQ(mine.head.rows, 64);
  ExpectShows(mine.head, weights_.head, 64, 0);
  EXPECT_EQ(mine.embedding.rows, 128);
}

TEST_F(RankWeightsTest, RepeatsWindowHeadsWhereRanksAreMore) {
  const GemmaWeights mine = WeightsOfRank(config_, weights_, 3, 4);
  EXPECT_EQ(mine.layers[0].k.rows, 16);
  ExpectShows(mine.layers[0].k, weights_.layers[0].k, 16, 0);
  EXPECT_EQ(mine.layers[0].q.rows, 16);
  ExpectShows(mine.layers[0].q, weights_.layers[0].q, 48, 0);
}

TEST(ShareOfRowsTest, DiffersByABlockAtMost) {
  EXPECT_EQ(ShareOfRows(128, 0, 3).count, 32);
  EXPECT_EQ(ShareOfRows(128, 1, 3).first, 32);
  EXPECT_EQ(ShareOfRows(128, 1, 3).count, 48);
  EXPECT_EQ(ShareOfRows(128, 2, 3).count, 48);
  EXPECT_EQ(ShareOfRows(128, 2, 3).first, 80);
}

TEST_F(RankWeightsTest, RefusesRanksThatDoNotDivide) {
  EXPECT_OK(CheckDivides(config_, 1));
  EXPECT_OK(CheckDivides(config_, 2));
  EXPECT_OK(CheckDivides(config_, 4));
  for (const int ranks : {0, 3, 8}) {
    EXPECT_THAT(CheckDivides(config_, ranks),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("heads: 1, 2, 4; got ")));
  }
}

}  // namespace
}  // namespace lapidary
