// The inner kernel of matrix products: a tile of rows of x times blocks of 16
// columns, held in registers.
//
//   out[r, 16 b + i] (+)= sum over steps s of x[r, s] . w[b][s][i]
//
// where a step of w is 16 words of 32 bits, one for each column.  What x[r, s]
// and a word are, and how their product is added, is a Dot:
//
//   PairDot     pairs of bf16 on both sides, bf16 dot instruction
//   WidenedDot  two floats times a pair of bf16, widened
//   FloatDot    a float times a float
//
// Each sum is one chain in the order of the steps, so it does not depend on the
// shape of the tile that computes it, nor on where a range of steps is cut.

#ifndef KERNELS_CPU_DOT_TILE_H_
#define KERNELS_CPU_DOT_TILE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "kernels/bf16.h"

namespace lapidary::cpu {

template <class S>
struct PairDot {
  using Simd = S;
  using X = Bf16;
  static constexpr int kXPerStep = 2;
  static constexpr int kVectorsPerWord = 1;
  using Word = typename S::U;
  using Value = typename S::U;

  static Word LoadWords(const uint32_t* w) { return S::LoadWords(w); }
  static Value Broadcast(const X* x) {
    uint32_t pair;
    __builtin_memcpy(&pair, x, sizeof(pair));
    return pair - typename S::U{};
  }
  static typename S::F Add(typename S::F sum, Value x, Word w) {
    return S::DotPairs(sum, x, w);
  }
};

template <class S>
struct WidenedDot {
  using Simd = S;
  using X = float;
  static constexpr int kXPerStep = 2;
  static constexpr int kVectorsPerWord = 2;
  struct Word {
    typename S::F low;
    typename S::F high;
  };
  using Value = Word;

  static Word LoadWords(const uint32_t* w) {
    const typename S::U words = S::LoadWords(w);
    return {S::Low(words), S::High(words)};
  }
  static Value Broadcast(const X* x) { return {S::Set(x[0]), S::Set(x[1])}; }
  static typename S::F Add(typename S::F sum, const Value& x, const Word& w) {
    return S::Fma(x.high, w.high, S::Fma(x.low, w.low, sum));
  }
};

template <class S>
struct FloatDot {
  using Simd = S;
  using X = float;
  static constexpr int kXPerStep = 1;
  static constexpr int kVectorsPerWord = 1;
  using Word = typename S::F;
  using Value = typename S::F;

  static Word LoadWords(const uint32_t* w) {
    return (typename S::F)S::LoadWords(w);
  }
  static Value Broadcast(const X* x) { return S::Set(*x); }
  static typename S::F Add(typename S::F sum, Value x, Word w) {
    return S::Fma(x, w, sum);
  }
};

// The operands of a product; strides in elements of their types.
template <class Dot>
struct DotOperands {
  const typename Dot::X* x;  // [rows, steps * kXPerStep]
  int64_t x_stride;
  const uint32_t* w;  // [blocks][steps][16]
  int64_t block_stride;
  float* out;  // [rows, blocks * 16]
  int64_t out_stride;
  int steps;
  bool accumulate;  // Add to what is in `out`.
};

inline constexpr int kBlockColumns = 16;

// Blocks that fit in the registers beside each other for a tile of `rows`.
template <class Dot>
constexpr int TileBlocks(int rows) {
  using S = typename Dot::Simd;
  constexpr int kVectors = kBlockColumns / S::kLanes;
  for (const int blocks : {4, 2}) {
    const int sums = rows * blocks * kVectors;
    const int words = blocks * kVectors * Dot::kVectorsPerWord;
    if (sums + words + Dot::kVectorsPerWord <= S::kRegisters) return blocks;
  }
  return 1;
}

// Rows of the tile with the most sums: it reads least for what it computes.
template <class Dot>
constexpr int BestTileRows() {
  int best = 1;
  for (int rows = 1; rows <= Dot::Simd::kMaxTileRows; ++rows) {
    if (rows * TileBlocks<Dot>(rows) > best * TileBlocks<Dot>(best)) {
      best = rows;
    }
  }
  return best;
}

// Steps after which the next rows take over: the words of four blocks then lie
// in the first-level cache for all rows but the first.
inline constexpr int kSliceSteps = 64;

// How far ahead words are fetched to the second-level cache.
inline constexpr int kPrefetchSteps = 64;

template <class Dot, int kRows, int kBlocks>
void DotTile(const DotOperands<Dot>& operands) {
  using S = typename Dot::Simd;
  constexpr int kVectors = kBlockColumns / S::kLanes;
  constexpr int kColumns = kBlocks * kVectors;  // Of vectors.
  const DotOperands<Dot> o = operands;

  typename S::F sums[kRows][kColumns] = {};
  if (o.accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = S::Load(o.out + r * o.out_stride + c * S::kLanes);
      }
    }
  }
  for (int step = 0; step < o.steps; ++step) {
    const uint32_t* w = o.w + int64_t{step} * kBlockColumns;
    typename Dot::Word words[kColumns];
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) {
      const uint32_t* from =
          w + c / kVectors * o.block_stride + c % kVectors * S::kLanes;
      words[c] = Dot::LoadWords(from);
      __builtin_prefetch(from + kPrefetchSteps * kBlockColumns, /*rw=*/0,
                         /*locality=*/2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Dot::Value x =
          Dot::Broadcast(o.x + r * o.x_stride + step * Dot::kXPerStep);
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = Dot::Add(sums[r][c], x, words[c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) {
      S::Store(sums[r][c], o.out + r * o.out_stride + c * S::kLanes);
    }
  }
}

// The tiles for one number of rows: as many blocks as fit, and a single one.
template <class Dot>
struct RowTiles {
  void (*wide)(const DotOperands<Dot>&);
  void (*single)(const DotOperands<Dot>&);
  int wide_blocks;
};

template <class Dot, int kRows>
constexpr RowTiles<Dot> MakeRowTiles() {
  constexpr int kWide = TileBlocks<Dot>(kRows);
  return {DotTile<Dot, kRows, kWide>, DotTile<Dot, kRows, 1>, kWide};
}

// By the number of rows less one.
template <class Dot, int... kRows>
constexpr std::array<RowTiles<Dot>, sizeof...(kRows)> MakeTiles(
    std::integer_sequence<int, kRows...>) {
  return {MakeRowTiles<Dot, kRows + 1>()...};
}

template <class Dot>
constexpr auto kTiles =
    MakeTiles<Dot>(std::make_integer_sequence<int, Dot::Simd::kMaxTileRows>());

// Rows of the next tile when `rows` are left.
template <class Dot>
int NextTileRows(int rows) {
  constexpr int kBest = BestTileRows<Dot>();
  if (rows >= 2 * kBest) return kBest;
  if (rows > Dot::Simd::kMaxTileRows) return (rows + 1) / 2;
  return rows;
}

// All rows by one group of up to four blocks, for `operands.steps`.
template <class Dot>
void DotSlice(const DotOperands<Dot>& operands, int rows, int group) {
  DotOperands<Dot> o = operands;
  for (int r = 0; r < rows;) {
    const int count = NextTileRows<Dot>(rows - r);
    const RowTiles<Dot>& tiles = kTiles<Dot>[count - 1];
    o.x = operands.x + r * operands.x_stride;
    for (int g = 0; g < group;) {
      const bool wide = group - g >= tiles.wide_blocks;
      o.w = operands.w + g * operands.block_stride;
      o.out =
          operands.out + r * operands.out_stride + int64_t{g} * kBlockColumns;
      (wide ? tiles.wide : tiles.single)(o);
      g += wide ? tiles.wide_blocks : 1;
    }
    r += count;
  }
}

// The whole product for `rows` and `blocks`.
template <class Dot>
void DotPanel(const DotOperands<Dot>& operands, int rows, int blocks) {
  constexpr int kGroup = 4;
  for (int b = 0; b < blocks; b += kGroup) {
    DotOperands<Dot> o = operands;
    o.w += b * operands.block_stride;
    o.out += int64_t{b} * kBlockColumns;
    for (int step = 0; step < operands.steps; step += kSliceSteps) {
      o.steps = operands.steps - step < kSliceSteps ? operands.steps - step
                                                    : kSliceSteps;
      DotSlice(o, rows, blocks - b < kGroup ? blocks - b : kGroup);
      o.x += kSliceSteps * Dot::kXPerStep;
      o.w += kSliceSteps * kBlockColumns;
      o.accumulate = true;
    }
  }
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_DOT_TILE_H_
