// From projections to stored keys and values and back, on every instruction set
// that the machine has.

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "common/tokens.h"
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

INSTANTIATE_TEST_SUITE_P(
    Isas, AttentionTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    AttentionTestName);

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

TEST_P(AttentionTest, WriteKvTakesRowsBeforeThoseOfTheQueries) {
  const Layer layer = {
      .heads = 2, .kv_heads = 1, .head_dim = 16, .key_half = 8, .window = 0};
  const std::unique_ptr<Backend> backend = NewBackend(2);
  PagedStore store(layer, dtype(), *backend);
  History history = RandomHistory(layer, dtype(), 100, 8);
  const PageId pages[] = {5, 9};
  const AttentionSequence sequence = {.first_row = 0,
                                      .num_tokens = 10,
                                      .start = 90,
                                      .earlier_keys = 60,
                                      .pages = pages,
                                      .first_page = 0,
                                      .num_pages = 2};
  const int first_position = 50;
  backend->WriteKv({.keys = history.keys.tensor().Rows(30, 70),
                    .values = history.values.tensor().Rows(30, 70),
                    .planes = store.planes(),
                    .sequences = {&sequence, 1},
                    .first_positions = {&first_position, 1}});
  Matrix keys(dtype(), 51, 16);
  Matrix values(dtype(), 51, 16);
  backend->ReadKv({.planes = store.planes(),
                   .pages = pages,
                   .first_page = 0,
                   .num_pages = 2,
                   .first_position = 49,
                   .keys = keys.tensor(),
                   .values = values.tensor()});
  EXPECT_TRUE(std::isnan(values.at(0, 0)));
  for (int r = 1; r < 51; ++r) {
    ASSERT_TRUE(keys.SameRow(r, history.keys, 49 + r)) << r;
    ASSERT_TRUE(values.SameRow(r, history.values, 49 + r)) << r;
  }
}

TEST_P(AttentionTest, ReadKvGivesBackWhatWriteKvWrote) {
  const Layer layers[] = {
      {.heads = 4, .kv_heads = 1, .head_dim = 512, .key_half = 64, .window = 0},
      {.heads = 4, .kv_heads = 3, .head_dim = 32, .key_half = 16, .window = 0},
      {.heads = 4, .kv_heads = 2, .head_dim = 16, .key_half = 0, .window = 0}};
  for (const Layer& layer : layers) {
    const std::unique_ptr<Backend> backend = NewBackend(3);
    PagedStore store(layer, dtype(), *backend);
    History history = RandomHistory(layer, dtype(), 500, 8);
    const std::vector<PageId> pages = store.NewPages(500, 0);
    store.Write(history, pages, 0, 500);
    for (const int first : {0, 1, 64, 100, 499}) {
      for (const int count : {0, 1, 63, 300}) {
        const int rows = std::min(count, 500 - first);
        Matrix keys(dtype(), rows, history.keys.cols());
        Matrix values(dtype(), rows, history.values.cols());
        const int first_page = first / kPageTokens;
        backend->ReadKv(
            {.planes = store.planes(),
             .pages = pages.data() + first_page,
             .first_page = first_page,
             .num_pages = static_cast<int>(pages.size()) - first_page,
             .first_position = first,
             .keys = keys.tensor(),
             .values = values.tensor()});
        for (int r = 0; r < rows; ++r) {
          ASSERT_TRUE(keys.SameRow(r, history.keys, first + r));
          ASSERT_TRUE(values.SameRow(r, history.values, first + r));
        }
      }
    }
  }
}

// A layer's planes may have more elements than an int counts.
TEST_P(AttentionTest, PagesMayLieBeyondTwoBillionElements) {
  constexpr int kHeads = 2;
  constexpr int kDim = 512;
  constexpr int kHalf = 64;
  constexpr int kLength = 130;
  constexpr int kFar = 40000;  // 2.6e9 values of two heads before this page.
  const Layer layer = {.heads = kHeads,
                       .kv_heads = kHeads,
                       .head_dim = kDim,
                       .key_half = kHalf,
                       .window = 0};
  const std::unique_ptr<Backend> backend = NewBackend(2);
  const int64_t slots = int64_t{kFar + 3} * kHeads * kPageTokens;
  const int64_t size = SizeOf(dtype());
  KvPlanes planes = {.dtype = dtype(),
                     .kv_heads = kHeads,
                     .head_dim = kDim,
                     .key_half = kHalf};
  const auto key_memory = backend->Allocate(slots * 2 * kHalf * size);
  const auto value_memory = backend->Allocate(slots * kDim * size);
  if (!key_memory.ok() || !value_memory.ok()) {
    GTEST_SKIP() << "needs 13 GB of addresses, of which it uses little";
  }
  planes.keys = *key_memory;
  planes.values = *value_memory;
  History history = RandomHistory(layer, dtype(), kLength, 9);
  const auto attend = [&](const std::vector<PageId>& pages) {
    const AttentionSequence sequence = {.num_tokens = kLength,
                                        .start = 0,
                                        .pages = pages.data(),
                                        .num_pages = 3};
    const int first_position = 0;
    backend->WriteKv({.keys = history.keys.tensor(),
                      .values = history.values.tensor(),
                      .planes = planes,
                      .sequences = {&sequence, 1},
                      .first_positions = {&first_position, 1}});
    Matrix out(dtype(), kLength, kHeads * kDim);
    backend->Attend({.q = history.q.tensor(),
                     .planes = planes,
                     .sequences = {&sequence, 1},
                     .num_heads = kHeads,
                     .out = out.tensor()});
    return out;
  };
  const std::vector<PageId> far = {kFar + 1, kFar, kFar + 2};
  const Matrix expected = attend({0, 1, 2});
  const Matrix out = attend(far);
  Matrix keys(dtype(), kLength, history.keys.cols());
  Matrix values(dtype(), kLength, history.values.cols());
  backend->ReadKv({.planes = planes,
                   .pages = far.data(),
                   .num_pages = 3,
                   .keys = keys.tensor(),
                   .values = values.tensor()});
  for (int r = 0; r < kLength; ++r) {
    ASSERT_TRUE(out.SameRow(r, expected, r)) << r;
    ASSERT_TRUE(keys.SameRow(r, history.keys, r)) << r;
    ASSERT_TRUE(values.SameRow(r, history.values, r)) << r;
  }
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

TEST_P(AttentionTest, QkNormRopeTreatsQueriesAndKeysApartAsTogether) {
  constexpr int kRows = 9;
  constexpr int kDim = 48;
  constexpr int kHalf = 10;
  const std::unique_ptr<Backend> backend = NewBackend(2);
  const Matrix q = Matrix::Random(dtype(), kRows, 4 * kDim, 1);
  Matrix k = Matrix::Random(dtype(), kRows, 2 * kDim, 2);
  const Weights norms(16, kDim, 4);
  const Matrix angles = Matrix::Random(DType::kF32, 1, 2 * kRows * kHalf, 5);
  std::vector<float> turns;
  for (int i = 0; i < angles.cols(); ++i) turns.push_back(angles.at(0, i));

  struct Rows {
    Matrix q;
    Matrix keys;
    Matrix values;
  };
  const auto run = [&](bool with_q, bool with_k) {
    Rows rows = {.q = q,
                 .keys = Matrix(dtype(), kRows, 2 * 2 * kHalf),
                 .values = Matrix(dtype(), kRows, 2 * kDim)};
    backend->QkNormRope({.q = with_q ? rows.q.tensor() : Tensor(),
                         .k = with_k ? k.tensor() : Tensor(),
                         .v = with_k ? k.tensor() : Tensor(),
                         .q_norm = norms.row_major().data(),
                         .k_norm = norms.row_major().data() + kDim,
                         .epsilon = 1e-6f,
                         .head_dim = kDim,
                         .key_half = kHalf,
                         .cos = turns.data(),
                         .sin = turns.data() + kRows * kHalf,
                         .num_angles = kHalf,
                         .keys = with_k ? rows.keys.tensor() : Tensor(),
                         .values = with_k ? rows.values.tensor() : Tensor()});
    return rows;
  };
  const Rows together = run(true, true);
  const Rows queries = run(true, false);
  const Rows keys = run(false, true);
  for (int r = 0; r < kRows; ++r) {
    ASSERT_TRUE(queries.q.SameRow(r, together.q, r)) << r;
    ASSERT_TRUE(keys.q.SameRow(r, q, r)) << r;
    ASSERT_TRUE(keys.keys.SameRow(r, together.keys, r)) << r;
    ASSERT_TRUE(keys.values.SameRow(r, together.values, r)) << r;
  }
}

}  // namespace
}  // namespace lapidary
