// Softmax attention over pages and step keys, on every instruction set that the
// machine has, against float64.

#include "kernels/attention.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"
#include "kernels/testing/attention_fixture.h"
#include "kernels/testing/matrix.h"

namespace lapidary {
namespace {

using Layer = AttentionLayer;

INSTANTIATE_TEST_SUITE_P(
    Isas, AttentionTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    AttentionTestName);

const Layer kLayers[] = {
    {.heads = 4, .kv_heads = 2, .head_dim = 16, .key_half = 8, .window = 1},
    {.heads = 4, .kv_heads = 4, .head_dim = 32, .key_half = 16, .window = 63},
    {.heads = 3, .kv_heads = 1, .head_dim = 48, .key_half = 24, .window = 64},
    {.heads = 4, .kv_heads = 2, .head_dim = 256, .key_half = 128, .window = 65},
    {.heads = 6, .kv_heads = 2, .head_dim = 16, .key_half = 8, .window = 100},
    {.heads = 8, .kv_heads = 1, .head_dim = 64, .key_half = 8, .window = 0},
    {.heads = 4, .kv_heads = 1, .head_dim = 512, .key_half = 64, .window = 0},
    {.heads = 4, .kv_heads = 2, .head_dim = 32, .key_half = 3, .window = 0},
    {.heads = 2, .kv_heads = 1, .head_dim = 16, .key_half = 0, .window = 0},
};

TEST_P(AttentionTest, AgreesWithFloat64) {
  for (const Layer& layer : kLayers) {
    for (const int start : {0, 1, 63, 64, 130, 200}) {
      History history = RandomHistory(layer, dtype(), start + 17, 1);
      const Options options = {
          .step_keys = start % 2 == 0 ? StepKeys::kGiven : StepKeys::kInPages};
      const Result result = Attend(
          layer, {{.history = &history, .start = start, .count = 17}}, options);
      ExpectNear(layer, history, start, result, options);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(AttentionTest, AgreesWithFloat64OverSeveralPieces) {
  const Layer layers[] = {
      {.heads = 4, .kv_heads = 1, .head_dim = 64, .key_half = 8, .window = 0},
      {.heads = 2,
       .kv_heads = 1,
       .head_dim = 32,
       .key_half = 16,
       .window = 1500}};
  for (const Layer& layer : layers) {
    History history = RandomHistory(layer, dtype(), 2200, 4);
    for (const int count : {1, 90}) {
      const int start = history.length() - count;
      const Options options = {.step_keys = StepKeys::kGiven};
      const Result result =
          Attend(layer, {{.history = &history, .start = start, .count = count}},
                 options);
      ExpectNear(layer, history, start, result, options);
      if (HasFatalFailure()) return;
    }
  }
}

// Shapes, windows, segments, ranks and cuts that nobody chose by hand.
TEST_P(AttentionTest, AgreesWithFloat64OnShapesAtRandom) {
  std::minstd_rand random(17);
  const auto below = [&random](int bound) {
    return static_cast<int>(random() % bound);
  };
  for (int trial = 0; trial < 120; ++trial) {
    const int head_dim = 16 * (1 + below(6));
    const int kv_heads = 1 + below(3);
    const Layer layer = {.heads = kv_heads * (1 + below(5)),
                         .kv_heads = kv_heads,
                         .head_dim = head_dim,
                         .key_half = below(head_dim / 2 + 1),
                         .window = below(3) == 0 ? 0 : 1 + below(200)};
    const int start = below(trial % 10 == 0 ? 1100 : 250);
    const int count = 1 + below(trial % 10 == 1 ? 150 : 12);
    const int first_page = below(2) == 0 ? 0 : below(4);
    const int num_ranks = 1 + below(3);
    const bool given = below(2) == 0;
    const Options options = {
        .step_keys = given ? StepKeys::kGiven : StepKeys::kInPages,
        .earlier_keys = given ? below(start + 1) : 0,
        .first_key = first_page * kPageTokens,
        .end_key =
            below(2) == 0 ? INT_MAX : (first_page + below(4)) * kPageTokens,
        .rank = below(num_ranks),
        .num_ranks = num_ranks,
        .threads = 1 + below(3)};
    SCOPED_TRACE(::testing::Message()
                 << "trial " << trial << ": d " << head_dim << " key half "
                 << layer.key_half << " window " << layer.window << " from "
                 << start << " count " << count << " earlier "
                 << options.earlier_keys << " keys [" << options.first_key
                 << ", " << options.end_key << ") rank " << options.rank
                 << " of " << num_ranks);
    History history = RandomHistory(layer, dtype(), start + count, trial);
    const Result result =
        Attend(layer, {{.history = &history, .start = start, .count = count}},
               options);
    ExpectNear(layer, history, start, result, options);
    if (HasFatalFailure()) return;
  }
}

// Such a row used to count as one that saw nothing, which a merge leaves out.
TEST_P(AttentionTest, KeysThatAreNotNumbersShow) {
  const Layer layer = {
      .heads = 2, .kv_heads = 1, .head_dim = 32, .key_half = 8, .window = 0};
  History history = RandomHistory(layer, dtype(), 70, 3);
  history.keys.FillNan();
  history.values.FillNan();
  for (const int start : {0, 60}) {
    const Result result =
        Attend(layer, {{.history = &history, .start = start, .count = 10}}, {});
    for (int r = 0; r < 10; ++r) {
      for (int c = 0; c < 64; ++c) {
        ASSERT_TRUE(std::isnan(result.out.at(r, c))) << r << ", " << c;
      }
      ASSERT_TRUE(std::isnan(result.lse.at(r, 1))) << r;
    }
  }
}

// It used to be asked for the pages before its start.
TEST_P(AttentionTest, ASequenceWithoutTokensNeedsNoPages) {
  const Layer layer = {
      .heads = 2, .kv_heads = 1, .head_dim = 16, .key_half = 8, .window = 0};
  const std::unique_ptr<Backend> backend = NewBackend(2);
  PagedStore store(layer, dtype(), *backend);
  const AttentionSequence sequences[] = {{.num_tokens = 0, .start = 100}};
  Matrix q(dtype(), 1, 32);
  Matrix out(dtype(), 1, 32);
  out.Set(0, 5, 3.0f);
  backend->Attend({.q = q.tensor(),
                   .planes = store.planes(),
                   .sequences = sequences,
                   .num_heads = 2,
                   .out = out.tensor()});
  EXPECT_EQ(out.at(0, 5), 3.0f);
}

// Bit for bit.
TEST_P(AttentionTest, RowsDoNotDependOnChunksBatchThreadsOrWhereKeysLie) {
  const Layer layers[] = {
      {.heads = 4,
       .kv_heads = 2,
       .head_dim = 32,
       .key_half = 16,
       .window = 100},
      {.heads = 4, .kv_heads = 1, .head_dim = 32, .key_half = 4, .window = 0}};
  for (const Layer& layer : layers) {
    constexpr int kLength = 1100;
    History history = RandomHistory(layer, dtype(), kLength, 5);
    History other = RandomHistory(layer, dtype(), 300, 6);
    const Result whole =
        Attend(layer, {{.history = &history, .start = 0, .count = kLength}},
               {.step_keys = StepKeys::kGiven});
    for (const int chunk : {1, 63, 64, 65, 1000}) {
      for (const int end : {129, 1030, kLength}) {
        const int start = std::max(0, end - chunk);
        const Part part = {
            .history = &history, .start = start, .count = end - start};
        const Part companion = {.history = &other, .start = 250, .count = 50};
        const Result results[] = {
            Attend(layer, {part},
                   {.step_keys = StepKeys::kGiven, .threads = 1}),
            Attend(layer, {part},
                   {.step_keys = StepKeys::kInPages, .threads = 3}),
            Attend(layer, {part, companion}, {.step_keys = StepKeys::kGiven})};
        for (const Result& result : results) {
          for (int r = 0; r < part.count; ++r) {
            ASSERT_TRUE(result.out.SameRow(r, whole.out, start + r))
                << "position " << start + r << " in a chunk of " << chunk;
            ASSERT_TRUE(result.lse.SameRow(r, whole.lse, start + r));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lapidary
