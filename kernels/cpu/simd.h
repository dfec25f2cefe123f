// Vectors of kLanes floats, and what kernels do with them beyond the operators
// + - * / < that gcc gives its vector types.
//
// A kernel is a template over one of these.  Each instruction set has a struct
// of its own, so the instances that are compiled for it have names of their own
// and never stand in for another's.

#ifndef KERNELS_CPU_SIMD_H_
#define KERNELS_CPU_SIMD_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/bf16.h"

namespace lapidary::cpu {

// A lane's types.  Dependent on a parameter, as gcc needs them to be for
// vectors whose size depends on one.
template <class Tag>
struct Lane {
  using Float = float;
  using Int = int32_t;
  using Word = uint32_t;
  using Half = uint16_t;
};

// `Tag` tells the instruction sets apart.
template <class Tag, int kN>
struct VectorOf {
  static constexpr int kLanes = kN;

  typedef typename Lane<Tag>::Float F __attribute__((vector_size(4 * kN)));
  typedef typename Lane<Tag>::Int I __attribute__((vector_size(4 * kN)));
  typedef typename Lane<Tag>::Word U __attribute__((vector_size(4 * kN)));
  typedef typename Lane<Tag>::Half H
      __attribute__((vector_size(2 * kN)));  // bf16 bits.

  static F Zero() { return F{}; }
  static F Set(float value) { return value - F{}; }

  static F Load(const float* p) {
    F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static F Load(const Bf16* p) {
    H bits;
    std::memcpy(&bits, p, sizeof(bits));
    return (F)(__builtin_convertvector(bits, U) << 16);
  }
  static U LoadWords(const uint32_t* p) {
    U v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void StoreWords(U v, uint32_t* p) { std::memcpy(p, &v, sizeof(v)); }

  static void Store(F v, float* p) { std::memcpy(p, &v, sizeof(v)); }
  // Rounds to the nearest, ties to even.  NaN stays NaN.
  static void Store(F v, Bf16* p) {
    const U bits = (U)v;
    const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const U nan = (bits >> 16) | 0x40u;
    const U result = (bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
    const H halves = __builtin_convertvector(result, H);
    std::memcpy(p, &halves, sizeof(halves));
  }

  // The two bf16 numbers of each 32-bit word.
  static F Low(U words) { return (F)(words << 16); }
  static F High(U words) { return (F)(words & 0xffff0000u); }

  static F Fma(F a, F b, F c) { return a * b + c; }
  static F Max(F a, F b) { return a > b ? a : b; }

  // to[c * 16 + r] = word c of rows[r], for 16 rows that may lie anywhere.
  static void TransposeRows(const void* const* rows, int words, uint32_t* to) {
    for (int r = 0; r < 16; ++r) {
      const char* from = static_cast<const char*>(rows[r]);
      for (int c = 0; c < words; ++c) {
        std::memcpy(to + c * 16 + r, from + c * sizeof(uint32_t),
                    sizeof(uint32_t));
      }
    }
  }
  // The same for 16 words of each row.
  static void TransposeSquare(const void* const* rows, uint32_t* to) {
    TransposeRows(rows, 16, to);
  }

  // Over the lanes, in one fixed order.
  static float Sum(F v) {
    float sum = v[0];
    for (int i = 1; i < kN; ++i) sum += v[i];
    return sum;
  }
  static float MaxLane(F v) {
    float max = v[0];
    for (int i = 1; i < kN; ++i) max = v[i] > max ? v[i] : max;
    return max;
  }
};

// One lane, for what is left at the end of a row.
template <class S>
using OneLane = VectorOf<S, 1>;

// Calls body.operator()<V>(i) for i in [begin, end) in steps of V::kLanes:
// whole vectors of S first, then single lanes.
template <class S, class Body>
void ForEachVector(int begin, int end, const Body& body) {
  int i = begin;
  for (; i + S::kLanes <= end; i += S::kLanes) body.template operator()<S>(i);
  for (; i < end; ++i) body.template operator()<OneLane<S>>(i);
}

// Copies `count` numbers, converting them if the types differ.
template <class S, class X, class T>
void CopyRow(const T* from, int count, X* to) {
  if constexpr (std::is_same_v<X, T>) {
    std::memcpy(to, from, count * sizeof(X));
  } else {
    ForEachVector<S>(
        0, count, [&]<class V>(int i) { V::Store(V::Load(from + i), to + i); });
  }
}

template <class S, class X>
void ClearRow(int count, X* to) {
  ForEachVector<S>(0, count,
                   [&]<class V>(int i) { V::Store(V::Zero(), to + i); });
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SIMD_H_
