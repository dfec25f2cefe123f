// Eight lanes, AVX2 with FMA.

#ifndef KERNELS_CPU_SIMD_AVX2_H_
#define KERNELS_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace lapidary::cpu {

struct Avx2 : VectorOf<Avx2, 8> {
  static constexpr int kRegisters = 16;
  static constexpr int kMaxTileRows = 4;

  static F Fma(F a, F b, F c) { return (F)_mm256_fmadd_ps(a, b, c); }
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SIMD_AVX2_H_
