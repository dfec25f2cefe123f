// Attention in parts, over ranks, heads and segments of keys, and the merge of
// the parts, on every instruction set that the machine has.

#include <algorithm>
#include <climits>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/bf16.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"
#include "kernels/testing/attention_fixture.h"
#include "kernels/testing/matrix.h"

namespace lapidary {
namespace {

using Layer = AttentionLayer;

constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();
constexpr Layer kGlobal = {
    .heads = 4, .kv_heads = 1, .head_dim = 64, .key_half = 8, .window = 0};

INSTANTIATE_TEST_SUITE_P(
    Isas, AttentionTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    AttentionTestName);

TEST_P(AttentionTest, ARankAttendsToItsOwnPagesOnly) {
  History history = RandomHistory(kGlobal, dtype(), 300, 7);
  for (int rank = 0; rank < 3; ++rank) {
    for (const int start : {0, 60, 280}) {
      const Options options = {.rank = rank, .num_ranks = 3};
      const Result result =
          Attend(kGlobal, {{.history = &history, .start = start, .count = 20}},
                 options);
      ExpectNear(kGlobal, history, start, result, options);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(AttentionTest, ASegmentIsAttendedToAlone) {
  const Layer layers[] = {
      kGlobal,
      {.heads = 4, .kv_heads = 2, .head_dim = 16, .key_half = 8, .window = 90}};
  struct Segment {
    int first;
    int end;
  };
  for (const Layer& layer : layers) {
    History history = RandomHistory(layer, dtype(), 300, 7);
    for (const Segment segment :
         {Segment{0, 64}, Segment{64, 192}, Segment{128, INT_MAX},
          Segment{256, 320}, Segment{64, 64}, Segment{320, INT_MAX}}) {
      for (const StepKeys step_keys : {StepKeys::kGiven, StepKeys::kInPages}) {
        const Options options = {.step_keys = step_keys,
                                 .first_key = segment.first,
                                 .end_key = segment.end};
        const Result result =
            Attend(layer, {{.history = &history, .start = 180, .count = 120}},
                   options);
        ExpectNear(layer, history, 180, result, options);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Bit for bit.
TEST_P(AttentionTest, KeysBeforeTheQueriesMayComeFromTheStep) {
  const Layer layers[] = {
      kGlobal,
      {.heads = 4, .kv_heads = 2, .head_dim = 16, .key_half = 8, .window = 90}};
  for (const Layer& layer : layers) {
    History history = RandomHistory(layer, dtype(), 300, 7);
    const Part part = {.history = &history, .start = 200, .count = 100};
    const Result expected =
        Attend(layer, {part}, {.step_keys = StepKeys::kInPages});
    for (const int earlier : {1, 8, 89, 100, 200}) {
      const Result result =
          Attend(layer, {part},
                 {.step_keys = StepKeys::kGiven, .earlier_keys = earlier});
      for (int r = 0; r < part.count; ++r) {
        ASSERT_TRUE(result.out.SameRow(r, expected.out, r)) << earlier;
        ASSERT_TRUE(result.lse.SameRow(r, expected.lse, r)) << earlier;
      }
    }
  }
}

// Bit for bit, also where it cuts the heads of a KV head.
TEST_P(AttentionTest, ARangeOfHeadsGetsWhatItGetsAmongAll) {
  const Layer layers[] = {
      {.heads = 12, .kv_heads = 4, .head_dim = 16, .key_half = 8, .window = 70},
      {.heads = 6, .kv_heads = 1, .head_dim = 32, .key_half = 3, .window = 0}};
  for (const Layer& layer : layers) {
    const int d = layer.head_dim;
    History history = RandomHistory(layer, dtype(), 150, 7);
    const Part part = {.history = &history, .start = 140, .count = 10};
    const Result all = Attend(layer, {part}, {});
    for (int first = 0; first < layer.heads; ++first) {
      for (int count = 1; first + count <= layer.heads; ++count) {
        const Result some =
            Attend(layer, {part}, {.first_head = first, .num_heads = count});
        for (int r = 0; r < part.count; ++r) {
          for (int c = 0; c < count * d; ++c) {
            ASSERT_EQ(some.out.at(r, c), all.out.at(r, first * d + c))
                << count << " heads from " << first;
          }
          for (int h = 0; h < count; ++h) {
            ASSERT_EQ(some.lse.at(r, h), all.lse.at(r, first + h));
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, Fp32ResultsAreThoseThatTheDtypeRounds) {
  History history = RandomHistory(kGlobal, dtype(), 200, 7);
  const Part part = {.history = &history, .start = 190, .count = 10};
  const Result rounded = Attend(kGlobal, {part}, {});
  const Result exact = Attend(kGlobal, {part}, {.fp32_out = true});
  for (int r = 0; r < part.count; ++r) {
    for (int c = 0; c < exact.out.cols(); ++c) {
      const float x = exact.out.at(r, c);
      ASSERT_EQ(rounded.out.at(r, c),
                dtype() == DType::kF32 ? x : RoundToBf16(x));
    }
  }
}

class MergeAttentionTest : public AttentionTest {
 protected:
  // Merges in fp32 what several calls of Attend gave.
  Result Merge(std::vector<Result>& results) const {
    std::vector<AttentionPart> parts;
    for (Result& result : results) {
      parts.push_back({result.out.tensor(), result.lse.tensor()});
    }
    Result merged = results[0];
    NewBackend(2)->MergeAttention({.parts = parts,
                                   .num_heads = merged.lse.cols(),
                                   .out = merged.out.tensor(),
                                   .lse = merged.lse.tensor()});
    return merged;
  }

  // Parts with random results.  For one row in three and head, some parts saw
  // nothing, and for some of these no part did; what they hold is NaN.
  struct Shape {
    int parts;
    int rows;
    int heads;
    int head_dim;
  };
  std::vector<Result> RandomParts(const Shape& shape) const {
    std::vector<Result> parts;
    for (int i = 0; i < shape.parts; ++i) {
      Result part = {
          .out = Matrix::Random(DType::kF32, shape.rows,
                                shape.heads * shape.head_dim, 2 * i + 1),
          .lse = Matrix::Random(DType::kF32, shape.rows, shape.heads, 2 * i + 2,
                                20.0f)};
      for (int r = 0; r < shape.rows; r += 3) {
        for (int h = 0; h < shape.heads; ++h) {
          if (i % 2 != (r / 3 + h) % 2 && (r + h) % 4 != 0) continue;
          part.lse.Set(r, h, kNothingSeen);
          for (int c = 0; c < shape.head_dim; ++c) {
            part.out.Set(r, h * shape.head_dim + c, std::nanf(""));
          }
        }
      }
      parts.push_back(part);
    }
    return parts;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Isas, MergeAttentionTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    AttentionTestName);

TEST_P(MergeAttentionTest, SegmentsOfALongContextMergeToTheWhole) {
  History history = RandomHistory(kGlobal, dtype(), 5000, 7);
  for (const int count : {1, 70}) {
    const int start = history.length() - count;
    const Part part = {.history = &history, .start = start, .count = count};
    const int borders[] = {0, 64, 1088, 4096, 4992, 5056, INT_MAX};
    std::vector<Result> segments;
    for (size_t i = 0; i + 1 < std::size(borders); ++i) {
      segments.push_back(Attend(kGlobal, {part},
                                {.first_key = borders[i],
                                 .end_key = borders[i + 1],
                                 .fp32_out = true}));
    }
    ExpectNear(kGlobal, history, start, Merge(segments), {});
    if (HasFatalFailure()) return;
  }
}

TEST_P(MergeAttentionTest, RanksMergeToTheWholeAlsoWhereSomeHaveNoKeys) {
  History history = RandomHistory(kGlobal, dtype(), 300, 7);
  for (const int start : {0, 50, 120, 280}) {
    const Part part = {.history = &history, .start = start, .count = 20};
    std::vector<Result> ranks;
    for (int rank = 0; rank < 4; ++rank) {
      ranks.push_back(Attend(kGlobal, {part},
                             {.rank = rank, .num_ranks = 4, .fp32_out = true}));
    }
    ExpectNear(kGlobal, history, start, Merge(ranks), {});
    if (HasFatalFailure()) return;
  }
}

TEST_P(MergeAttentionTest, AgreesWithFloat64) {
  const double rounding = dtype() == DType::kF32 ? 0 : 0x1p-8;
  for (const Shape& shape :
       {Shape{1, 5, 3, 16}, Shape{2, 40, 2, 7}, Shape{3, 9, 3, 1},
        Shape{5, 17, 4, 48}, Shape{8, 3, 16, 512}, Shape{64, 4, 1, 33}}) {
    std::vector<Result> results = RandomParts(shape);
    std::vector<AttentionPart> parts;
    for (Result& result : results) {
      parts.push_back({result.out.tensor(), result.lse.tensor()});
    }
    const int d = shape.head_dim;
    Matrix out(dtype(), shape.rows, shape.heads * d);
    Matrix lse(DType::kF32, shape.rows, shape.heads);
    NewBackend(3)->MergeAttention({.parts = parts,
                                   .num_heads = shape.heads,
                                   .out = out.tensor(),
                                   .lse = lse.tensor()});
    for (int r = 0; r < shape.rows; ++r) {
      for (int h = 0; h < shape.heads; ++h) {
        double max = kNothingSeen;
        for (const Result& part : results) {
          max = std::max(max, double{part.lse.at(r, h)});
        }
        double sum = 0;
        std::vector<double> expected(d);
        for (const Result& part : results) {
          if (std::isinf(part.lse.at(r, h))) continue;
          const double weight = std::exp(part.lse.at(r, h) - max);
          sum += weight;
          for (int c = 0; c < d; ++c) {
            expected[c] += weight * part.out.at(r, h * d + c);
          }
        }
        for (int c = 0; c < d; ++c) {
          const double x = sum == 0 ? 0 : expected[c] / sum;
          ASSERT_NEAR(out.at(r, h * d + c), x,
                      std::abs(x) * rounding + 0x1p-20);
        }
        if (sum == 0) {
          ASSERT_EQ(lse.at(r, h), kNothingSeen);
        } else {
          ASSERT_NEAR(lse.at(r, h), max + std::log(sum), 4e-6);
        }
      }
    }
  }
}

TEST_P(MergeAttentionTest, MayWriteOverTheFirstPart) {
  std::vector<Result> results = RandomParts({3, 30, 2, 48});
  const Result expected = Merge(results);
  std::vector<AttentionPart> parts;
  for (Result& result : results) {
    parts.push_back({result.out.tensor(), result.lse.tensor()});
  }
  NewBackend(2)->MergeAttention({.parts = parts,
                                 .num_heads = 2,
                                 .out = parts[0].out,
                                 .lse = parts[0].lse});
  for (int r = 0; r < 30; ++r) {
    ASSERT_TRUE(results[0].out.SameRow(r, expected.out, r));
    ASSERT_TRUE(results[0].lse.SameRow(r, expected.lse, r));
  }
}

TEST_P(MergeAttentionTest, LeavesWhatOnePartAloneSawAsItIs) {
  std::vector<Result> results = RandomParts({3, 20, 2, 24});
  Result only = results[1];
  for (int r = 0; r < 20; ++r) {
    for (int h = 0; h < 2; ++h) {
      results[0].lse.Set(r, h, kNothingSeen);
      results[2].lse.Set(r, h, kNothingSeen);
      only.lse.Set(r, h, static_cast<float>(r + h));
    }
    for (int c = 0; c < 48; ++c) only.out.Set(r, c, c == 0 ? -0.0f : 0.1f * c);
  }
  results[1] = only;
  const Result merged = Merge(results);
  for (int r = 0; r < 20; ++r) {
    ASSERT_TRUE(merged.out.SameRow(r, only.out, r));
    ASSERT_TRUE(merged.lse.SameRow(r, only.lse, r));
  }
}

TEST_P(MergeAttentionTest, RowsDoNotDependOnTheBatchOrTheThreads) {
  std::vector<Result> results = RandomParts({3, 300, 2, 80});
  const Result expected = Merge(results);
  for (const int first : {0, 7, 299}) {
    std::vector<AttentionPart> parts;
    for (Result& result : results) {
      parts.push_back({result.out.tensor().Rows(first, 1),
                       result.lse.tensor().Rows(first, 1)});
    }
    Matrix out(DType::kF32, 1, 160);
    NewBackend(1)->MergeAttention(
        {.parts = parts, .num_heads = 2, .out = out.tensor()});
    ASSERT_TRUE(out.SameRow(0, expected.out, first));
  }
}

}  // namespace
}  // namespace lapidary
