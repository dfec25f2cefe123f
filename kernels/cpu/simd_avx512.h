// Sixteen lanes: AVX-512 F, BW, DQ and VL, and the same with BF16.

#ifndef KERNELS_CPU_SIMD_AVX512_H_
#define KERNELS_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace lapidary::cpu {

template <class Tag>
struct Avx512Base : VectorOf<Tag, 16> {
  using typename VectorOf<Tag, 16>::F;
  static constexpr int kRegisters = 32;
  static constexpr int kMaxTileRows = 8;

  static F Fma(F a, F b, F c) { return (F)_mm512_fmadd_ps(a, b, c); }
  static float Sum(F v) { return _mm512_reduce_add_ps(v); }
  static float MaxLane(F v) { return _mm512_reduce_max_ps(v); }

  // In four rounds, each of which exchanges halves twice as far apart.
  static void TransposeSquare(const void* const* rows, uint32_t* to) {
    __m512i a[16];
    __m512i b[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) a[r] = _mm512_loadu_si512(rows[r]);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r += 2) {
      b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
      b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; r += 4) {
      a[r] = _mm512_unpacklo_epi64(b[r], b[r + 2]);
      a[r + 1] = _mm512_unpackhi_epi64(b[r], b[r + 2]);
      a[r + 2] = _mm512_unpacklo_epi64(b[r + 1], b[r + 3]);
      a[r + 3] = _mm512_unpackhi_epi64(b[r + 1], b[r + 3]);
    }
#pragma GCC unroll 16
    for (int half = 0; half < 16; half += 8) {
#pragma GCC unroll 16
      for (int r = half; r < half + 4; ++r) {
        b[r] = _mm512_shuffle_i32x4(a[r], a[r + 4], 0x88);
        b[r + 4] = _mm512_shuffle_i32x4(a[r], a[r + 4], 0xdd);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < 8; ++r) {
      _mm512_storeu_si512(to + r * 16,
                          _mm512_shuffle_i32x4(b[r], b[r + 8], 0x88));
      _mm512_storeu_si512(to + (r + 8) * 16,
                          _mm512_shuffle_i32x4(b[r], b[r + 8], 0xdd));
    }
  }
};

struct Avx512 : Avx512Base<Avx512> {};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SIMD_AVX512_H_
