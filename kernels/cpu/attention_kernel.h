// Softmax attention of a few queries over one piece of keys, in tiles of 64
// positions:
//
//   scores = q * keys^T;  max' = max(max, row maximum of scores)
//   p = exp(scores - max');  a = exp(max - max')
//   sum = a sum + row sum of p;  out = a out + p * values
//
// Both products are those of dot_tile.h.  For them a tile is copied slice by
// slice to the first-level cache, each slice to be used by all the rows: keys
// as 16 positions a block with steps over channels, values as 16 channels a
// block with steps over positions.

#ifndef KERNELS_CPU_ATTENTION_KERNEL_H_
#define KERNELS_CPU_ATTENTION_KERNEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_math.h"

namespace lapidary::cpu {

inline constexpr int kTileTokens = kPageTokens;
// Channels of values that are copied together: four blocks.
inline constexpr int kTileChannels = 4 * kBlockColumns;
inline constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

template <class S>
constexpr int CeilDiv(int a, int b) {
  return (a + b - 1) / b;
}

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

// Whether a key comes from the step's, not from a page.
template <class S>
bool IsStepKey(const AttendArgs& args, const AttentionSequence& sequence,
               int position) {
  return args.step_values.data != nullptr &&
         position >= sequence.start - sequence.earlier_keys;
}

template <class S>
PageId PageOf(const AttentionSequence& sequence, int position) {
  return sequence.pages[position / kPageTokens - sequence.first_page];
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
    if (IsStepKey<S>(args_, sequence_, position)) {
      const int row = sequence_.first_row + sequence_.earlier_keys + position -
                      sequence_.start;
      return static_cast<const T*>(step.row(row)) + int64_t{kv_head_} * width;
    }
    const PageId page = PageOf<S>(sequence_, position);
    const int64_t block = int64_t{page} * args_.planes.kv_heads + kv_head_;
    return static_cast<const T*>(plane) +
           (block * kPageTokens + position % kPageTokens) * width;
  }

  const AttendArgs& args_;
  const AttentionSequence& sequence_;
  const int kv_head_;
};

// The stored rows of a tile's positions.  Those of a position that no query
// sees are another's: its score is not used and its probability is zero.
template <class T>
struct TileRows {
  const T* keys[kTileTokens];
  const T* values[kTileTokens];
};

template <class S, class T>
void FindRows(const AttendArgs& args, const AttendUnit& unit, int base,
              KeyRange needed, TileRows<T>& tile) {
  const KeyRows<S, T> rows(args, unit);
  const int last = std::min(needed.end, base + kTileTokens) - 1;
  for (int j = 0; j < kTileTokens; ++j) {
    const int position = std::clamp(base + j, needed.begin, last);
    tile.keys[j] = rows.key(position);
    tile.values[j] = rows.value(position);
  }
}

// Fetches the page of the next tile to the second-level cache, a share at each
// step of the work on this one.
template <class S>
class PageFetch {
 public:
  // Does nothing if the tile at `position` is not one of a page.
  PageFetch(const AttendArgs& args, const AttendUnit& unit, int position,
            int steps) {
    if (IsStepKey<S>(args, *unit.sequence, position)) return;
    const KvPlanes& planes = args.planes;
    const PageId page = PageOf<S>(*unit.sequence, position);
    rest_[0] = Block(planes, planes.keys, 2 * planes.key_half, page, unit);
    rest_[1] = Block(planes, planes.values, planes.head_dim, page, unit);
    share_ = (rest_[0].count + rest_[1].count + steps - 1) / steps;
  }
  // Fetches nothing.
  PageFetch() = default;

  void Step() {
    int64_t share = share_;
    for (Lines& rest : rest_) {
      for (; share > 0 && rest.count > 0; --share, --rest.count) {
        __builtin_prefetch(rest.begin, /*rw=*/0, /*locality=*/2);
        rest.begin += kLineBytes;
      }
    }
  }

 private:
  static constexpr int kLineBytes = 64;
  struct Lines {
    const char* begin = nullptr;
    int64_t count = 0;
  };

  static Lines Block(const KvPlanes& planes, const void* plane, int width,
                     PageId page, const AttendUnit& unit) {
    const int64_t bytes = int64_t{kPageTokens} * width * SizeOf(planes.dtype);
    const int64_t block = int64_t{page} * planes.kv_heads + unit.kv_head;
    return {static_cast<const char*>(plane) + block * bytes,
            bytes / kLineBytes};
  }

  Lines rest_[2];
  int64_t share_ = 0;  // Lines a step.
};

// Some channels of a key, in the order of a query: see attention.h.
struct KeyChannels {
  int begin;
  int count;
};

// The first channels of `channels` that lie together, and where.
template <class T>
struct KeyRun {
  const T* const* rows;  // [64]
  int offset;
  int count;
};

template <class S, class T>
KeyRun<T> FirstRun(const TileRows<T>& tile, const KvPlanes& planes,
                   KeyChannels channels) {
  const int half = planes.head_dim / 2;
  const int i = channels.begin % half;
  if (i >= planes.key_half) {
    return {tile.values, channels.begin, std::min(channels.count, half - i)};
  }
  return {tile.keys, channels.begin < half ? i : planes.key_half + i,
          std::min(channels.count, planes.key_half - i)};
}

// Points from[j] at the channels of position j: where they are stored, or at a
// copy of them in `copies` if they lie apart or are of another type.
template <class S, class X, class T>
void FindKeys(const TileRows<T>& tile, const KvPlanes& planes,
              KeyChannels channels, X* copies, const void** from) {
  if constexpr (std::is_same_v<X, T>) {
    const KeyRun<T> run = FirstRun<S>(tile, planes, channels);
    if (run.count == channels.count) {
      for (int j = 0; j < kTileTokens; ++j) from[j] = run.rows[j] + run.offset;
      return;
    }
  }
  for (int j = 0; j < kTileTokens; ++j) from[j] = copies + j * channels.count;
  for (int done = 0; done < channels.count;) {
    const KeyRun<T> run = FirstRun<S>(
        tile, planes, {channels.begin + done, channels.count - done});
    for (int j = 0; j < kTileTokens; ++j) {
      CopyRow<S>(run.rows[j] + run.offset, run.count,
                 copies + j * channels.count + done);
    }
    done += run.count;
  }
}

// Keys as packed [4][kSliceSteps][16] for steps [first, first + count).
template <class Dot, class T>
void PackKeys(const TileRows<T>& tile, const KvPlanes& planes, int first,
              int count, const AttendScratch& scratch,
              PageFetch<typename Dot::Simd>& fetch) {
  using S = typename Dot::Simd;
  constexpr int kSquare = kBlockColumns;
  for (int step = 0; step < count; step += kSquare) {
    const int steps = std::min(kSquare, count - step);
    const KeyChannels channels = {(first + step) * Dot::kXPerStep,
                                  steps * Dot::kXPerStep};
    fetch.Step();
    const void* from[kTileTokens];
    FindKeys<S>(tile, planes, channels,
                static_cast<typename Dot::X*>(scratch.keys), from);
    for (int block = 0; block < kTileTokens / kSquare; ++block) {
      uint32_t* to =
          scratch.packed + (block * kSliceSteps + step) * kBlockColumns;
      if (steps == kSquare) {
        S::TransposeSquare(from + block * kSquare, to);
      } else {
        S::TransposeRows(from + block * kSquare, steps, to);
      }
    }
  }
}

// Positions j and j + 1 as pairs: packed [count / 16][32][16][2].
template <class S, class T>
void PackValues(PairDot<S>, const T* const* rows, int first, int count,
                uint32_t* packed) {
  constexpr int kSteps = kTileTokens / 2;
  for (int j = 0; j < kSteps; ++j) {
    const T* even = rows[2 * j] + first;
    const T* odd = rows[2 * j + 1] + first;
    uint32_t* to = packed + j * kBlockColumns;
    int c = 0;
    for (; c + 2 * kBlockColumns <= count; c += 2 * kBlockColumns) {
      typename S::U words[2];
      S::InterleaveTwo(even + c, odd + c, words[0], words[1]);
      S::StoreWords(words[0], to + c * kSteps);
      S::StoreWords(words[1], to + (c + kBlockColumns) * kSteps);
    }
    if (c < count) {
      S::StoreWords(S::Interleave(even + c, odd + c), to + c * kSteps);
    }
  }
}

// packed [count / 16][64][16].
template <class S, class T>
void PackValues(FloatDot<S>, const T* const* rows, int first, int count,
                uint32_t* packed) {
  auto* to = reinterpret_cast<float*>(packed);
  for (int j = 0; j < kTileTokens; ++j) {
    for (int c = 0; c < count; c += kBlockColumns) {
      CopyRow<S>(rows[j] + first + c, kBlockColumns,
                 to + c * kTileTokens + j * kBlockColumns);
    }
  }
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
