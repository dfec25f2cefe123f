#include "kernels/testing/attention_fixture.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"

namespace lapidary {
namespace {

constexpr double kNothingSeen = -std::numeric_limits<double>::infinity();

Matrix NanRow(DType dtype, int64_t size) {
  Matrix memory(dtype, 1, static_cast<int>(size));
  memory.FillNan();
  return memory;
}

// Channel c of the key that attention.h describes.
double KeyChannel(const AttentionLayer& layer, const History& history,
                  int position, int kv_head, int c) {
  const int half = layer.head_dim / 2;
  const int a = layer.key_half;
  if (c % half < a) {
    return history.keys.at(position,
                           kv_head * 2 * a + c % half + (c < half ? 0 : a));
  }
  return history.values.at(position, kv_head * layer.head_dim + c);
}

}  // namespace

History RandomHistory(const AttentionLayer& layer, DType dtype, int length,
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

AttendedInFloat64 AttendInFloat64(
    const AttentionLayer& layer, const History& history, int position, int head,
    const std::function<bool(int page)>& visible) {
  const int d = layer.head_dim;
  const int kv_head = head / (layer.heads / layer.kv_heads);
  const int begin =
      layer.window == 0 ? 0 : std::max(0, position - layer.window + 1);
  std::vector<double> scores;
  double max = kNothingSeen;
  std::vector<double> q;
  for (int c = 0; c < d; ++c) q.push_back(history.q.at(position, head * d + c));
  for (int k = begin; k <= position; ++k) {
    double score = visible(k / kPageTokens) ? 0 : kNothingSeen;
    for (int c = 0; c < d; ++c) {
      score += q[c] * KeyChannel(layer, history, k, kv_head, c);
    }
    scores.push_back(score);
    max = std::max(max, score);
  }
  AttendedInFloat64 result{.out = std::vector<double>(d), .lse = max};
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

PagedStore::PagedStore(const AttentionLayer& layer, DType dtype,
                       Backend& backend)
    : layer_(layer),
      backend_(backend),
      keys_(NanRow(dtype, int64_t{kPages} * layer.kv_heads * kPageTokens * 2 *
                              layer.key_half)),
      values_(NanRow(dtype, int64_t{kPages} * layer.kv_heads * kPageTokens *
                                layer.head_dim)),
      planes_{.keys = keys_.tensor().data,
              .values = values_.tensor().data,
              .dtype = dtype,
              .kv_heads = layer.kv_heads,
              .head_dim = layer.head_dim,
              .key_half = layer.key_half} {}

std::vector<PageId> PagedStore::NewPages(int num_tokens, int start) {
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

void PagedStore::Write(History& history, const std::vector<PageId>& pages,
                       int begin, int end) {
  const AttentionSequence sequence = {
      .first_row = 0,
      .num_tokens = end - begin,
      .start = begin,
      .pages = pages.data(),
      .first_page = 0,
      .num_pages = static_cast<int>(pages.size())};
  const int first_position = begin;
  backend_.WriteKv({.keys = history.keys.tensor().Rows(begin, end - begin),
                    .values = history.values.tensor().Rows(begin, end - begin),
                    .planes = planes_,
                    .sequences = {&sequence, 1},
                    .first_positions = {&first_position, 1}});
}

std::unique_ptr<Backend> AttentionTest::NewBackend(int threads) const {
  return NewCpuBackend({.threads = threads, .isa = isa()}).value();
}

AttentionTest::Result AttentionTest::Attend(const AttentionLayer& layer,
                                            const std::vector<Part>& parts,
                                            const Options& options) const {
  const std::unique_ptr<Backend> backend = NewBackend(options.threads);
  PagedStore store(layer, dtype(), *backend);
  const int d = layer.head_dim;
  const bool given = options.step_keys == StepKeys::kGiven;
  const int num_heads =
      options.num_heads == 0 ? layer.heads : options.num_heads;
  int rows = 0;
  for (const Part& part : parts) rows += part.count;
  Matrix q(dtype(), rows, layer.heads * d);
  const int step_rows = rows + options.earlier_keys;
  Matrix keys(dtype(), step_rows, layer.kv_heads * 2 * layer.key_half);
  Matrix values(dtype(), step_rows, layer.kv_heads * d);
  std::vector<std::vector<PageId>> pages;
  std::vector<AttentionSequence> sequences;
  int row = 0;
  for (const Part& part : parts) {
    const int end = part.start + part.count;
    const int first_given = part.start - options.earlier_keys;
    const int stored = given ? first_given : end;
    pages.push_back(store.NewPages(stored, part.start));
    for (int p = 0; p < NumPages(stored); ++p) {
      const int position = p * kPageTokens;
      if (p % options.num_ranks != options.rank ||
          position < options.first_key || position >= options.end_key) {
        pages.back()[p] = kNoPage;
      }
    }
    if (stored > 0) store.Write(*part.history, pages.back(), 0, stored);
    sequences.push_back({.first_row = row,
                         .num_tokens = part.count,
                         .start = part.start,
                         .earlier_keys = given ? options.earlier_keys : 0,
                         .first_key = options.first_key,
                         .end_key = options.end_key,
                         .num_pages = NumPages(stored)});
    for (int i = 0; i < part.count; ++i) {
      q.CopyRow(row + i, part.history->q, part.start + i);
    }
    for (int position = first_given; position < end; ++position) {
      keys.CopyRow(row + position - first_given, part.history->keys, position);
      values.CopyRow(row + position - first_given, part.history->values,
                     position);
    }
    row += part.count;
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
  const DType out_dtype = options.fp32_out ? DType::kF32 : dtype();
  Result result{.out = Matrix(out_dtype, rows, num_heads * d),
                .lse = Matrix(DType::kF32, rows, num_heads)};
  backend->Attend({.q = q.tensor().Cols(options.first_head * d, num_heads * d),
                   .planes = store.planes(),
                   .step_keys = given ? keys.tensor() : Tensor(),
                   .step_values = given ? values.tensor() : Tensor(),
                   .sequences = sequences,
                   .num_heads = num_heads,
                   .first_head = options.first_head,
                   .num_layer_heads = options.num_heads == 0 ? 0 : layer.heads,
                   .window = layer.window,
                   .rank = options.rank,
                   .num_ranks = options.num_ranks,
                   .out = result.out.tensor(),
                   .lse = result.lse.tensor()});
  return result;
}

void AttentionTest::ExpectNear(const AttentionLayer& layer,
                               const History& history, int start,
                               const Result& result,
                               const Options& options) const {
  const double tolerance = dtype() == DType::kF32 ? 4e-6 : 6e-3;
  const auto visible = [&](int page) {
    return page % options.num_ranks == options.rank &&
           page * kPageTokens >= options.first_key &&
           page * kPageTokens < options.end_key;
  };
  for (int r = 0; r < result.out.rows(); ++r) {
    // Some rows are enough where there are many.
    if (result.out.rows() > 70 && r % 17 != 0 && r != result.out.rows() - 1) {
      continue;
    }
    for (int h = 0; h < result.lse.cols(); ++h) {
      const AttendedInFloat64 expected = AttendInFloat64(
          layer, history, start + r, options.first_head + h, visible);
      for (int c = 0; c < layer.head_dim; ++c) {
        ASSERT_NEAR(result.out.at(r, h * layer.head_dim + c), expected.out[c],
                    tolerance)
            << "row " << r << " head " << h << " channel " << c;
      }
      const float lse = result.lse.at(r, h);
      if (std::isinf(expected.lse)) {
        ASSERT_EQ(lse, -std::numeric_limits<float>::infinity());
      } else {
        ASSERT_NEAR(lse, expected.lse, 1e-5);
      }
    }
  }
}

std::string AttentionTestName(
    const ::testing::TestParamInfo<std::tuple<Isa, DType>>& info) {
  return std::string(IsaName(std::get<0>(info.param))) +
         (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
}

}  // namespace lapidary
