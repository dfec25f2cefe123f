// Sixteen lanes, AVX-512 with instructions for bf16.

#ifndef KERNELS_CPU_SIMD_AVX512_BF16_H_
#define KERNELS_CPU_SIMD_AVX512_BF16_H_

#include "kernels/cpu/simd_avx512.h"

namespace lapidary::cpu {

struct Avx512Bf16 : Avx512Base<Avx512Bf16> {
  using Base = Avx512Base<Avx512Bf16>;
  using typename Base::F;
  using typename Base::H;
  using typename Base::U;

  using Base::Store;
  static void Store(F v, Bf16* p) {
    const __m256bh halves = _mm512_cvtneps_pbh(v);
    std::memcpy(p, &halves, sizeof(halves));
  }

  // The pairs (a[i], b[i]).
  static U Interleave(const Bf16* a, const Bf16* b) {
    H first;
    H second;
    std::memcpy(&first, a, sizeof(first));
    std::memcpy(&second, b, sizeof(second));
    return __builtin_convertvector(first, U) |
           __builtin_convertvector(second, U) << 16;
  }

  // The pairs (a[i], b[i]) for 32 numbers.
  static void InterleaveTwo(const Bf16* a, const Bf16* b, U& first, U& second) {
    const __m512i x = _mm512_loadu_si512(a);
    const __m512i y = _mm512_loadu_si512(b);
    first = (U)_mm512_permutex2var_epi16(x, PairsFrom(0), y);
    second = (U)_mm512_permutex2var_epi16(x, PairsFrom(16), y);
  }

  // sum + the dot product of the two bf16 numbers of x and of w, in each lane.
  static F DotPairs(F sum, U x, U w) {
    return (F)_mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  }

 private:
  // Picks the pairs first, first + 1, ... of two vectors of 32.
  static __m512i PairsFrom(uint32_t first) {
    U words;
    for (uint32_t i = 0; i < 16; ++i) {
      words[i] = (first + i) | (32 + first + i) << 16;
    }
    return (__m512i)words;
  }
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_BF16_H_
