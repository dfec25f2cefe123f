// Softmax attention of a few queries over one piece of keys, in tiles of 64
// positions:
//
//   scores = q * keys^T;  max' = max(max, row maximum of scores)
//   p = exp(scores - max');  a = exp(max - max')
//   sum = a sum + row sum of p;  out = a out + p * values
//
// Both products are those of dot_tile.h, over what attention_tile.h packs.

#ifndef KERNELS_CPU_ATTENTION_KERNEL_H_
#define KERNELS_CPU_ATTENTION_KERNEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_math.h"

namespace lapidary::cpu {

inline constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

template <class S>
constexpr int CeilDiv(int a, int b) {
  return (a + b - 1) / b;
}

// What the query at `position` sees.
template <class S>
KeyRange VisibleTo(int position, int window) {
  const bool whole = window == 0 || position < window;
  return {whole ? 0 : position - window + 1, position + 1};
}

// scratch.scores [rows, 64] = q * keys^T.
template <class Dot, class T>
void ScoreTile(const TileRows<T>& tile, const KvPlanes& planes,
               const typename Dot::X* q, int rows, const AttendScratch& scratch,
               PageFetch<typename Dot::Simd>& fetch) {
  const int key_steps = planes.head_dim / Dot::kXPerStep;
  for (int step = 0; step < key_steps; step += kSliceSteps) {
    const int steps = std::min(kSliceSteps, key_steps - step);
    PackKeys<Dot>(tile, planes, step, steps, scratch, fetch);
    DotSlice<Dot>({.x = q + step * Dot::kXPerStep,
                   .x_stride = planes.head_dim,
                   .w = scratch.packed,
                   .block_stride = int64_t{kSliceSteps} * kBlockColumns,
                   .out = scratch.scores,
                   .out_stride = kTileTokens,
                   .steps = steps,
                   .accumulate = step > 0},
                  rows, kTileTokens / kBlockColumns);
  }
}

// out [rows, d] += probabilities * values.
template <class Dot, class T>
void AddValues(const TileRows<T>& tile, int head_dim, int rows,
               const AttendScratch& scratch,
               PageFetch<typename Dot::Simd>& fetch, float* out) {
  constexpr int kSteps = kTileTokens / Dot::kXPerStep;
  for (int c = 0; c < head_dim; c += kTileChannels) {
    const int count = std::min(kTileChannels, head_dim - c);
    fetch.Step();
    PackValues(Dot(), tile.values, c, count, scratch.packed);
    DotSlice<Dot>(
        {.x = static_cast<const typename Dot::X*>(scratch.probabilities),
         .x_stride = kTileTokens,
         .w = scratch.packed,
         .block_stride = int64_t{kSteps} * kBlockColumns,
         .out = out + c,
         .out_stride = head_dim,
         .steps = kSteps,
         .accumulate = true},
        rows, count / kBlockColumns);
  }
}

// One row of a tile: scores become probabilities.  `visible` is relative to the
// tile and not empty.
template <class S, class X>
void SoftmaxRow(float* scores, KeyRange visible, int head_dim, float& max,
                float& sum, float* out, X* probabilities) {
  using F = typename S::F;
  for (int j = 0; j < visible.begin; ++j) scores[j] = kNothingSeen;
  for (int j = visible.end; j < kTileTokens; ++j) scores[j] = kNothingSeen;

  F maxima = S::Load(scores);
  for (int j = S::kLanes; j < kTileTokens; j += S::kLanes) {
    maxima = S::Max(maxima, S::Load(scores + j));
  }
  const float tile_max = S::MaxLane(maxima);
  if (tile_max > max) {
    if (max != kNothingSeen) {
      const F scale = Exp<S>(S::Set(max - tile_max));
      sum *= scale[0];
      for (int c = 0; c < head_dim; c += kBlockColumns) {
        for (int i = c; i < c + kBlockColumns; i += S::kLanes) {
          S::Store(S::Load(out + i) * scale, out + i);
        }
      }
    }
    max = tile_max;
  }
  // Scores that are not numbers must not pass for no scores.
  if (max == kNothingSeen) max = std::numeric_limits<float>::quiet_NaN();

  F sums = S::Zero();
  for (int j = 0; j < kTileTokens; j += S::kLanes) {
    const F p = Exp<S>(S::Load(scores + j) - max);
    sums += p;
    S::Store(p, probabilities + j);
  }
  sum += S::Sum(sums);
}

template <class Dot, class T>
void AttendTile(const AttendArgs& args, const AttendUnit& unit, int base,
                PageFetch<typename Dot::Simd> fetch,
                const AttendScratch& scratch, const AttendState& state) {
  using S = typename Dot::Simd;
  using X = typename Dot::X;
  const int d = args.planes.head_dim;
  const int start = unit.sequence->start + unit.first_token;

  // Tokens [first, last) see a position of the tile.
  const int first = std::max(0, base - start);
  const int last = args.window == 0
                       ? unit.num_tokens
                       : std::min(unit.num_tokens,
                                  base + kTileTokens - 1 + args.window - start);
  if (first >= last) return;
  const KeyRange needed = {VisibleTo<S>(start + first, args.window).begin,
                           start + last};
  TileRows<T> tile;
  FindRows<S>(args, unit, base, needed, tile);

  const int begin = first * unit.num_heads;
  const int rows = (last - first) * unit.num_heads;
  ScoreTile<Dot>(tile, args.planes,
                 static_cast<const X*>(scratch.q) + int64_t{begin} * d, rows,
                 scratch, fetch);
  auto* probabilities = static_cast<X*>(scratch.probabilities);
  for (int r = 0; r < rows; ++r) {
    const int row = begin + r;
    const KeyRange sees =
        VisibleTo<S>(start + row / unit.num_heads, args.window);
    const KeyRange visible = {std::max(0, sees.begin - base),
                              std::min(kTileTokens, sees.end - base)};
    SoftmaxRow<S>(scratch.scores + r * kTileTokens, visible, d, state.max[row],
                  state.sum[row], state.out + int64_t{row} * d,
                  probabilities + r * kTileTokens);
  }
  AddValues<Dot>(tile, d, rows, scratch, fetch, state.out + int64_t{begin} * d);
}

// The unit's query rows, one beside the next.
template <class Dot, class T>
void LoadQueries(const AttendArgs& args, const AttendUnit& unit, void* q) {
  using X = typename Dot::X;
  const int d = args.planes.head_dim;
  const int width = unit.num_heads * d;
  for (int t = 0; t < unit.num_tokens; ++t) {
    const T* row = static_cast<const T*>(
        args.q.row(unit.sequence->first_row + unit.first_token + t));
    CopyRow<typename Dot::Simd>(row + int64_t{unit.first_head} * d, width,
                                static_cast<X*>(q) + int64_t{t} * width);
  }
}

template <class Dot, class T>
void AttendPiece(const AttendArgs& args, const AttendUnit& unit,
                 const AttendScratch& scratch, const AttendState& state) {
  using S = typename Dot::Simd;
  const int d = args.planes.head_dim;
  for (int r = 0; r < unit.num_tokens * unit.num_heads; ++r) {
    state.max[r] = kNothingSeen;
    state.sum[r] = 0;
    ClearRow<S>(d, state.out + int64_t{r} * d);
  }
  LoadQueries<Dot, T>(args, unit, scratch.q);

  const AttentionSequence& sequence = *unit.sequence;
  const int start = sequence.start + unit.first_token;
  const int begin = std::max({VisibleTo<S>(start, args.window).begin,
                              sequence.first_key, unit.piece * kPieceTokens});
  const int end = std::min({start + unit.num_tokens, sequence.end_key,
                            (unit.piece + 1) * kPieceTokens});
  // As many as AttendTile takes.
  const int fetch_steps = CeilDiv<S>(d / Dot::kXPerStep, kBlockColumns) +
                          CeilDiv<S>(d, kTileChannels);
  for (int page = begin / kPageTokens; page * kPageTokens < end; ++page) {
    if (page % args.num_ranks != args.rank) continue;
    const int next = (page + args.num_ranks) * kPageTokens;
    AttendTile<Dot, T>(args, unit, page * kPageTokens,
                       next < end ? PageFetch<S>(args, unit, next, fetch_steps)
                                  : PageFetch<S>(),
                       scratch, state);
  }
}

template <class S>
void MergeState(const AttendState& piece, int rows, int head_dim,
                const AttendState& total) {
  using F = typename S::F;
  for (int r = 0; r < rows; ++r) {
    if (piece.max[r] == kNothingSeen) continue;
    float* out = total.out + int64_t{r} * head_dim;
    const float* add = piece.out + int64_t{r} * head_dim;
    if (total.max[r] == kNothingSeen) {
      total.max[r] = piece.max[r];
      total.sum[r] = piece.sum[r];
      CopyRow<S>(add, head_dim, out);
      continue;
    }
    const float max = std::max(total.max[r], piece.max[r]);
    const F ours = Exp<S>(S::Set(total.max[r] - max));
    const F theirs = Exp<S>(S::Set(piece.max[r] - max));
    total.max[r] = max;
    total.sum[r] = total.sum[r] * ours[0] + piece.sum[r] * theirs[0];
    for (int c = 0; c < head_dim; c += S::kLanes) {
      S::Store(S::Fma(S::Load(out + c), ours, S::Load(add + c) * theirs),
               out + c);
    }
  }
}

template <class S, class T>
void FinishAttend(const AttendArgs& args, const AttendUnit& unit,
                  const AttendState& total) {
  const int d = args.planes.head_dim;
  for (int r = 0; r < unit.num_tokens * unit.num_heads; ++r) {
    const int row =
        unit.sequence->first_row + unit.first_token + r / unit.num_heads;
    const int head = unit.first_head + r % unit.num_heads;
    T* to = static_cast<T*>(args.out.row(row)) + int64_t{head} * d;
    const bool nothing = total.max[r] == kNothingSeen;
    if (nothing) {
      ClearRow<S>(d, to);
    } else {
      const float scale = 1.0f / total.sum[r];
      const float* from = total.out + int64_t{r} * d;
      ForEachVector<S>(0, d, [&]<class V>(int c) {
        V::Store(V::Load(from + c) * scale, to + c);
      });
    }
    if (args.lse.data != nullptr) {
      static_cast<float*>(args.lse.row(row))[head] =
          nothing ? kNothingSeen : total.max[r] + std::log(total.sum[r]);
    }
  }
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ATTENTION_KERNEL_H_
