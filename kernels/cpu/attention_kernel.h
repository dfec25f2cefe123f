// Softmax attention of a few queries over one piece of keys, in tiles of 64
// positions:
//
//   scores = q * keys^T;  max' = max(max, row maximum of scores)
//   p = exp(scores - max');  a = exp(max - max')
//   sum = a sum + row sum of p;  out = a out + p * values
//
// Both products are those of dot_tile.h.  For them a tile is copied once, to be
// used by all the rows: keys as 16 positions a block with steps over channels,
// values as 16 channels a block with steps over positions.

#ifndef KERNELS_CPU_ATTENTION_KERNEL_H_
#define KERNELS_CPU_ATTENTION_KERNEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_math.h"

namespace lapidary::cpu {

inline constexpr int kTileTokens = kPageTokens;
inline constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

// Positions [begin, end).
struct KeyRange {
  int begin;
  int end;
};

// What the query at `position` sees.
template <class S>
KeyRange VisibleTo(int position, int window) {
  const bool whole = window == 0 || position < window;
  return {whole ? 0 : position - window + 1, position + 1};
}

// Where the stored rows of one sequence and KV head lie.
template <class S, class T>
class KeyRows {
 public:
  KeyRows(const AttendArgs& args, const AttendUnit& unit)
      : args_(args), sequence_(*unit.sequence), kv_head_(unit.kv_head) {}

  const T* key(int position) const {
    return Row(position, args_.step_keys, args_.planes.keys,
               2 * args_.planes.key_half);
  }
  const T* value(int position) const {
    return Row(position, args_.step_values, args_.planes.values,
               args_.planes.head_dim);
  }

 private:
  const T* Row(int position, const Tensor& step, const void* plane,
               int width) const {
    const int first = sequence_.start - sequence_.earlier_keys;
    if (position >= first && args_.step_values.data != nullptr) {
      const int row = sequence_.first_row + position - first;
      return static_cast<const T*>(step.row(row)) + int64_t{kv_head_} * width;
    }
    const PageId page =
        sequence_.pages[position / kPageTokens - sequence_.first_page];
    const int64_t block = int64_t{page} * args_.planes.kv_heads + kv_head_;
    return static_cast<const T*>(plane) +
           (block * kPageTokens + position % kPageTokens) * width;
  }

  const AttendArgs& args_;
  const AttentionSequence& sequence_;
  const int kv_head_;
};

// One position's key in the channel order of a query: see attention.h.
template <class S, class X, class T>
void AssembleKey(const T* key, const T* value, int key_half, int half, X* to) {
  CopyRow<S>(key, key_half, to);
  CopyRow<S>(value + key_half, half - key_half, to + key_half);
  CopyRow<S>(key + key_half, key_half, to + half);
  CopyRow<S>(value + half + key_half, half - key_half, to + half + key_half);
}

// rows [64, words] to packed [4][words][16].
template <class S>
void TransposeKeys(const uint32_t* rows, int words, uint32_t* packed) {
  constexpr int kSquare = kBlockColumns;
  for (int block = 0; block < kTileTokens / kSquare; ++block) {
    const uint32_t* from = rows + int64_t{block} * kSquare * words;
    uint32_t* to = packed + int64_t{block} * kSquare * words;
    int w = 0;
    for (; w + kSquare <= words; w += kSquare) {
      S::TransposeSquare(from + w, words, to + w * kSquare);
    }
    for (; w < words; ++w) {
      for (int r = 0; r < kSquare; ++r)
        to[w * kSquare + r] = from[r * words + w];
    }
  }
}

// Positions j and j + 1 as pairs: packed [d / 16][32][16][2].
template <class S, class T>
void PackValues(PairDot<S>, const T* const* rows, int head_dim,
                uint32_t* packed) {
  constexpr int kSteps = kTileTokens / 2;
  for (int j = 0; j < kSteps; ++j) {
    const T* first = rows[2 * j];
    const T* second = rows[2 * j + 1];
    for (int c = 0; c < head_dim; c += kBlockColumns) {
      S::StoreWords(S::Interleave(first + c, second + c),
                    packed + (c * kSteps + j * kBlockColumns));
    }
  }
}

// packed [d / 16][64][16].
template <class S, class T>
void PackValues(FloatDot<S>, const T* const* rows, int head_dim,
                uint32_t* packed) {
  auto* to = reinterpret_cast<float*>(packed);
  for (int j = 0; j < kTileTokens; ++j) {
    for (int c = 0; c < head_dim; c += kBlockColumns) {
      CopyRow<S>(rows[j] + c, kBlockColumns,
                 to + c * kTileTokens + j * kBlockColumns);
    }
  }
}

// Copies the tile at `base` for the two products.  Positions outside `needed`
// become zero.
template <class Dot, class T>
void LoadTile(const AttendArgs& args, const AttendUnit& unit, int base,
              KeyRange needed, const AttendScratch& scratch) {
  using S = typename Dot::Simd;
  using X = typename Dot::X;
  const int d = args.planes.head_dim;
  const int key_half = args.planes.key_half;
  const KeyRows<S, T> rows(args, unit);
  auto* keys = static_cast<X*>(scratch.keys);
  // The probabilities of all needless positions are zero: any number will do.
  const T* values[kTileTokens];
  const T* some_value = rows.value(std::max(base, needed.begin));
  for (int j = 0; j < kTileTokens; ++j) {
    const int position = base + j;
    values[j] = some_value;
    X* to = keys + int64_t{j} * d;
    if (position < needed.begin || position >= needed.end) {
      ClearRow<S>(d, to);
      continue;
    }
    values[j] = rows.value(position);
    AssembleKey<S>(rows.key(position), values[j], key_half, d / 2, to);
  }
  TransposeKeys<S>(static_cast<const uint32_t*>(scratch.keys),
                   d / Dot::kXPerStep, scratch.packed_keys);
  PackValues(Dot(), values, d, scratch.packed_values);
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
  LoadTile<Dot, T>(args, unit, base, needed, scratch);

  const int begin = first * unit.num_heads;
  const int rows = (last - first) * unit.num_heads;
  const X* q = static_cast<const X*>(scratch.q) + int64_t{begin} * d;
  auto* probabilities = static_cast<X*>(scratch.probabilities);
  const int key_steps = d / Dot::kXPerStep;
  const int value_steps = kTileTokens / Dot::kXPerStep;
  DotPanel<Dot>({.x = q,
                 .x_stride = d,
                 .w = scratch.packed_keys,
                 .block_stride = int64_t{key_steps} * kBlockColumns,
                 .out = scratch.scores,
                 .out_stride = kTileTokens,
                 .steps = key_steps,
                 .accumulate = false},
                rows, kTileTokens / kBlockColumns);
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
  DotPanel<Dot>({.x = probabilities,
                 .x_stride = kTileTokens,
                 .w = scratch.packed_values,
                 .block_stride = int64_t{value_steps} * kBlockColumns,
                 .out = state.out + int64_t{begin} * d,
                 .out_stride = d,
                 .steps = value_steps,
                 .accumulate = true},
                rows, d / kBlockColumns);
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
  for (int page = begin / kPageTokens; page * kPageTokens < end; ++page) {
    if (page % args.num_ranks != args.rank) continue;
    AttendTile<Dot, T>(args, unit, page * kPageTokens, scratch, state);
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
