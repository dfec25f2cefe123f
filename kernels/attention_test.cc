// The attention operations, on every instruction set that the machine has,
// against float64.

#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/testing/matrix.h"

namespace lapidary {
namespace {

struct Layer {
  int heads;
  int kv_heads;
  int head_dim;
  int key_half;
  int window;
};

// A sequence's queries, keys and values from position 0 to its end.
struct History {
  Matrix q;       // [length, H * d]
  Matrix keys;    // [length, K * 2 * key_half]
  Matrix values;  // [length, K * d]
  int length() const { return q.rows(); }
};

History RandomHistory(const Layer& layer, DType dtype, int length,
                      uint32_t seed) {
  // Scores spread over some units, so that the softmax has something to do.
  const float q_scale = 6.0f / std::sqrt(static_cast<float>(layer.head_dim));
  return {.q = Matrix::Random(dtype, length, layer.heads * layer.head_dim, seed,
                              q_scale),
          .keys = Matrix::Random(dtype, length,
                                 layer.kv_heads * 2 * layer.key_half, seed + 1),
          .values = Matrix::Random(dtype, length,
                                   layer.kv_heads * layer.head_dim, seed + 2)};
}

// Channel c of the key that attention.h describes.
double KeyChannel(const Layer& layer, const History& history, int position,
                  int kv_head, int c) {
  const int half = layer.head_dim / 2;
  const int a = layer.key_half;
  if (c % half < a) {
    return history.keys.at(position,
                           kv_head * 2 * a + c % half + (c < half ? 0 : a));
  }
  return history.values.at(position, kv_head * layer.head_dim + c);
}

struct Attended {
  std::vector<double> out;
  double lse;
};

// `owned` says which pages count.
template <class Owned>
Attended AttendInFloat64(const Layer& layer, const History& history,
                         int position, int head, const Owned& owned) {
  const int d = layer.head_dim;
  const int kv_head = head / (layer.heads / layer.kv_heads);
  const int begin =
      layer.window == 0 ? 0 : std::max(0, position - layer.window + 1);
  std::vector<double> scores;
  double max = -std::numeric_limits<double>::infinity();
  std::vector<double> q;
  for (int c = 0; c < d; ++c) q.push_back(history.q.at(position, head * d + c));
  for (int k = begin; k <= position; ++k) {
    double score = 0;
    if (owned(k / kPageTokens)) {
      for (int c = 0; c < d; ++c) {
        score += q[c] * KeyChannel(layer, history, k, kv_head, c);
      }
    } else {
      score = -std::numeric_limits<double>::infinity();
    }
    scores.push_back(score);
    max = std::max(max, score);
  }
  Attended result{.out = std::vector<double>(d), .lse = max};
  if (std::isinf(max)) return result;
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - max);
  for (int c = 0; c < d; ++c) {
    for (size_t i = 0; i < scores.size(); ++i) {
      result.out[c] +=
          scores[i] / sum *
          history.values.at(begin + static_cast<int>(i), kv_head * d + c);
    }
  }
  result.lse += std::log(sum);
  return result;
}

// Pages of a few sequences.  All memory that no test writes to is NaN.
class PagedStore {
 public:
  PagedStore(const Layer& layer, DType dtype, Backend& backend)
      : layer_(layer),
        backend_(backend),
        keys_(Fill(dtype,
                   kPages * layer.kv_heads * kPageTokens * 2 * layer.key_half)),
        values_(Fill(dtype,
                     kPages * layer.kv_heads * kPageTokens * layer.head_dim)),
        planes_{.keys = keys_.tensor().data,
                .values = values_.tensor().data,
                .dtype = dtype,
                .kv_heads = layer.kv_heads,
                .head_dim = layer.head_dim,
                .key_half = layer.key_half} {}

  const KvPlanes& planes() const { return planes_; }

  // A page table for `num_tokens` tokens, without the pages that a query at
  // `start` or later does not see.
  std::vector<PageId> NewPages(int num_tokens, int start) {
    const int begin =
        layer_.window == 0 ? 0 : std::max(0, start - layer_.window + 1);
    std::vector<PageId> pages;
    for (int p = 0; p < NumPages(num_tokens); ++p) {
      const bool seen = p >= begin / kPageTokens;
      // Not in order: 7 is prime to the number of pages.
      pages.push_back(seen ? next_page_++ * 7 % kPages : kNoPage);
    }
    return pages;
  }

  // Writes the positions [begin, end) of `history`.
  void Write(History& history, const std::vector<PageId>& pages, int begin,
             int end) {
    const AttentionSequence sequence = {
        .first_row = 0,
        .num_tokens = end - begin,
        .start = begin,
        .pages = pages.data(),
        .first_page = 0,
        .num_pages = static_cast<int>(pages.size())};
    const int first_position = begin;
    backend_.WriteKv(
        {.keys = history.keys.tensor().Rows(begin, end - begin),
         .values = history.values.tensor().Rows(begin, end - begin),
         .planes = planes_,
         .sequences = {&sequence, 1},
         .first_positions = {&first_position, 1}});
  }

 private:
  static constexpr int kPages = 64;

  static Matrix Fill(DType dtype, int64_t size) {
    Matrix memory(dtype, 1, static_cast<int>(size));
    memory.FillNan();
    return memory;
  }

  const Layer layer_;
  Backend& backend_;
  Matrix keys_;
  Matrix values_;
  KvPlanes planes_;
  int next_page_ = 1;
};

enum class StepKeys { kGiven, kInPages };

// By instruction set and dtype.
class AttentionTest : public ::testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  Isa isa() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  // What the queries at [start, start + count) of each history get.
  struct Part {
    History* history;
    int start;
    int count;
  };
  struct Result {
    Matrix out;
    Matrix lse;
  };
  Result Attend(const Layer& layer, const std::vector<Part>& parts,
                StepKeys step_keys, int threads = 2, int rank = 0,
                int num_ranks = 1) const;

  void ExpectNear(const Layer& layer, History& history, int start,
                  const Result& result, int rank = 0, int num_ranks = 1) const;

  std::unique_ptr<Backend> NewBackend(int threads) const {
    return NewCpuBackend({.threads = threads, .isa = isa()}).value();
  }
};

AttentionTest::Result AttentionTest::Attend(const Layer& layer,
                                            const std::vector<Part>& parts,
                                            StepKeys step_keys, int threads,
                                            int rank, int num_ranks) const {
  const std::unique_ptr<Backend> backend = NewBackend(threads);
  PagedStore store(layer, dtype(), *backend);
  int rows = 0;
  for (const Part& part : parts) rows += part.count;
  Matrix q(dtype(), rows, layer.heads * layer.head_dim);
  Matrix keys(dtype(), rows, layer.kv_heads * 2 * layer.key_half);
  Matrix values(dtype(), rows, layer.kv_heads * layer.head_dim);
  std::vector<std::vector<PageId>> pages;
  std::vector<AttentionSequence> sequences;
  int row = 0;
  for (const Part& part : parts) {
    const int end = part.start + part.count;
    const bool given = step_keys == StepKeys::kGiven;
    const int stored = given ? part.start : end;
    pages.push_back(store.NewPages(stored, part.start));
    if (stored > 0) store.Write(*part.history, pages.back(), 0, stored);
    sequences.push_back({.first_row = row,
                         .num_tokens = part.count,
                         .start = part.start,
                         .num_pages = NumPages(stored)});
    for (int t = part.start; t < end; ++t, ++row) {
      q.CopyRow(row, part.history->q, t);
      keys.CopyRow(row, part.history->keys, t);
      values.CopyRow(row, part.history->values, t);
    }
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    // Pages in front that nobody sees need no entries.
    const auto first =
        std::find_if(pages[i].begin(), pages[i].end(),
                     [](PageId page) { return page != kNoPage; });
    sequences[i].first_page = static_cast<int>(first - pages[i].begin());
    sequences[i].num_pages -= sequences[i].first_page;
    sequences[i].pages = pages[i].data() + sequences[i].first_page;
  }
  Result result{.out = Matrix(dtype(), rows, q.cols()),
                .lse = Matrix(DType::kF32, rows, layer.heads)};
  const bool given = step_keys == StepKeys::kGiven;
  backend->Attend({.q = q.tensor(),
                   .planes = store.planes(),
                   .step_keys = given ? keys.tensor() : Tensor(),
                   .step_values = given ? values.tensor() : Tensor(),
                   .sequences = sequences,
                   .num_heads = layer.heads,
                   .window = layer.window,
                   .rank = rank,
                   .num_ranks = num_ranks,
                   .out = result.out.tensor(),
                   .lse = result.lse.tensor()});
  return result;
}

void AttentionTest::ExpectNear(const Layer& layer, History& history, int start,
                               const Result& result, int rank,
                               int num_ranks) const {
  const double tolerance = dtype() == DType::kF32 ? 4e-6 : 6e-3;
  for (int r = 0; r < result.out.rows(); ++r) {
    // Some rows are enough where there are many.
    if (result.out.rows() > 70 && r % 17 != 0 && r != result.out.rows() - 1) {
      continue;
    }
    for (int head = 0; head < layer.heads; ++head) {
      const Attended expected =
          AttendInFloat64(layer, history, start + r, head,
                          [&](int page) { return page % num_ranks == rank; });
      for (int c = 0; c < layer.head_dim; ++c) {
        ASSERT_NEAR(result.out.at(r, head * layer.head_dim + c),
                    expected.out[c], tolerance)
            << "row " << r << " head " << head << " channel " << c;
      }
      const float lse = result.lse.at(r, head);
      if (std::isinf(expected.lse)) {
        ASSERT_EQ(lse, -std::numeric_limits<float>::infinity());
      } else {
        ASSERT_NEAR(lse, expected.lse, 1e-5);
      }
    }
  }
}

std::string ParamName(
    const ::testing::TestParamInfo<std::tuple<Isa, DType>>& info) {
  return std::string(IsaName(std::get<0>(info.param))) +
         (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
}

INSTANTIATE_TEST_SUITE_P(
    Isas, AttentionTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    ParamName);

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
      const Result result =
          Attend(layer, {{.history = &history, .start = start, .count = 17}},
                 start % 2 == 0 ? StepKeys::kGiven : StepKeys::kInPages);
      ExpectNear(layer, history, start, result);
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
      const Result result =
          Attend(layer, {{.history = &history, .start = start, .count = count}},
                 StepKeys::kGiven);
      ExpectNear(layer, history, start, result);
      if (HasFatalFailure()) return;
    }
  }
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
               StepKeys::kGiven);
    for (const int chunk : {1, 63, 64, 65, 1000}) {
      for (const int end : {129, 1030, kLength}) {
        const int start = std::max(0, end - chunk);
        const Part part = {
            .history = &history, .start = start, .count = end - start};
        const Part companion = {.history = &other, .start = 250, .count = 50};
        const Result results[] = {
            Attend(layer, {part}, StepKeys::kGiven, /*threads=*/1),
            Attend(layer, {part}, StepKeys::kInPages, /*threads=*/3),
            Attend(layer, {part, companion}, StepKeys::kGiven)};
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

TEST_P(AttentionTest, ARankAttendsToItsOwnPagesOnly) {
  const Layer layer = {
      .heads = 4, .kv_heads = 1, .head_dim = 64, .key_half = 8, .window = 0};
  History history = RandomHistory(layer, dtype(), 300, 7);
  for (int rank = 0; rank < 3; ++rank) {
    for (const int start : {0, 60, 280}) {
      const Result result =
          Attend(layer, {{.history = &history, .start = start, .count = 20}},
                 StepKeys::kInPages, /*threads=*/2, rank, /*num_ranks=*/3);
      ExpectNear(layer, history, start, result, rank, 3);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(AttentionTest, WriteKvLeavesOtherPositionsAlone) {
  const Layer layer = {
      .heads = 2, .kv_heads = 2, .head_dim = 16, .key_half = 8, .window = 0};
  const std::unique_ptr<Backend> backend = NewBackend(2);
  PagedStore store(layer, dtype(), *backend);
  History history = RandomHistory(layer, dtype(), 100, 8);
  const std::vector<PageId> pages = {3, kNoPage};
  store.Write(history, pages, 10, 100);
  const auto value = [&](int position, int head, int c) {
    const int64_t index = ((3 * 2 + head) * 64 + position) * 16 + c;
    return dtype() == DType::kF32
               ? static_cast<float*>(store.planes().values)[index]
               : ToFloat(static_cast<Bf16*>(store.planes().values)[index]);
  };
  EXPECT_TRUE(std::isnan(value(9, 0, 0)));
  EXPECT_EQ(value(10, 1, 5), history.values.at(10, 16 + 5));
  EXPECT_EQ(value(63, 0, 15), history.values.at(63, 15));
}

TEST_P(AttentionTest, QkNormRopeNormsTurnsAndFolds) {
  struct Shape {
    int heads;
    int kv_heads;
    int head_dim;
    int key_half;
    int num_angles;
  };
  const Shape shapes[] = {{4, 2, 16, 8, 8},
                          {4, 1, 64, 8, 8},
                          {2, 1, 512, 64, 64},
                          {3, 3, 48, 24, 6},
                          {2, 1, 32, 0, 0}};
  const std::unique_ptr<Backend> backend = NewBackend(2);
  const double rounding = dtype() == DType::kF32 ? 4e-6 : 0x1p-8 * 1.01;
  for (const Shape& shape : shapes) {
    constexpr int kRows = 17;
    const int d = shape.head_dim;
    const int a = shape.key_half;
    Matrix q = Matrix::Random(dtype(), kRows, shape.heads * d, 1);
    Matrix k = Matrix::Random(dtype(), kRows, shape.kv_heads * d, 2);
    Matrix v = Matrix::Random(dtype(), kRows, shape.kv_heads * d, 3);
    const Matrix q_in = q;
    Matrix keys(dtype(), kRows, shape.kv_heads * 2 * a);
    Matrix values(dtype(), kRows, shape.kv_heads * d);
    const Weights norms(16, d, 4);
    const Bf16* q_norm = norms.row_major().data();
    const Bf16* k_norm = q_norm + d;
    Matrix angles = Matrix::Random(DType::kF32, kRows, shape.num_angles, 5, 9);
    std::vector<float> cos;
    std::vector<float> sin;
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < shape.num_angles; ++i) {
        cos.push_back(std::cos(angles.at(r, i)));
        sin.push_back(std::sin(angles.at(r, i)));
      }
    }
    backend->QkNormRope({.q = q.tensor(),
                         .k = k.tensor(),
                         .v = v.tensor(),
                         .q_norm = q_norm,
                         .k_norm = k_norm,
                         .epsilon = 1e-6f,
                         .head_dim = d,
                         .key_half = a,
                         .cos = cos.data(),
                         .sin = sin.data(),
                         .num_angles = shape.num_angles,
                         .keys = keys.tensor(),
                         .values = values.tensor()});
    // Channel c of head `head`, normed, weighted and turned.
    const auto expected = [&](const Matrix& x, int r, int head, int c,
                              const Bf16* norm) {
      double squares = 0;
      for (int i = 0; i < d; ++i) {
        squares += std::pow(x.at(r, head * d + i), 2);
      }
      const double scale = 1 / std::sqrt(squares / d + 1e-6);
      if (norm == nullptr) return x.at(r, head * d + c) * scale;
      const int i = c % (d / 2);
      const double first = x.at(r, head * d + i) * scale * ToFloat(norm[i]);
      const double second =
          x.at(r, head * d + d / 2 + i) * scale * ToFloat(norm[d / 2 + i]);
      if (i >= shape.num_angles) return c < d / 2 ? first : second;
      const double co = cos[r * shape.num_angles + i];
      const double si = sin[r * shape.num_angles + i];
      return c < d / 2 ? first * co - second * si : second * co + first * si;
    };
    for (int r = 0; r < kRows; ++r) {
      for (int head = 0; head < shape.heads; ++head) {
        for (int c = 0; c < d; ++c) {
          double y = expected(q_in, r, head, c, q_norm);
          if (c % (d / 2) >= a) y *= ToFloat(k_norm[c]);
          ASSERT_NEAR(q.at(r, head * d + c), y, std::abs(y) * rounding + 4e-6);
        }
      }
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int c = 0; c < 2 * a; ++c) {
          const int channel = c < a ? c : d / 2 + c - a;
          const double y = expected(k, r, head, channel, k_norm);
          ASSERT_NEAR(keys.at(r, head * 2 * a + c), y,
                      std::abs(y) * rounding + 4e-6);
        }
        for (int c = 0; c < d; ++c) {
          const double y = expected(v, r, head, c, nullptr);
          ASSERT_NEAR(values.at(r, head * d + c), y,
                      std::abs(y) * rounding + 4e-6);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lapidary
