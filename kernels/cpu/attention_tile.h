// A tile of 64 positions of attention: where its keys and values lie, and how
// they are packed for the products of dot_tile.h.
//
//   FindRows     positions to stored rows, in pages or among the step's
//   PackKeys     16 positions a block, with steps over channels
//   PackValues   16 channels a block, with steps over positions
//
// Both pack a slice at a time to the first-level cache, to be used there by all
// query rows.
//
// What uses no vectors is a template over them all the same: see simd.h.

#ifndef KERNELS_CPU_ATTENTION_TILE_H_
#define KERNELS_CPU_ATTENTION_TILE_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/simd.h"
#include "kernels/tensor.h"

namespace lapidary::cpu {

inline constexpr int kTileTokens = kPageTokens;
// Channels of values that are copied together: four blocks.
inline constexpr int kTileChannels = 4 * kBlockColumns;

// Positions [begin, end).
struct KeyRange {
  int begin;
  int end;
};

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

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ATTENTION_TILE_H_
