// Four lanes, with what every machine has.

#ifndef KERNELS_CPU_SIMD_PORTABLE_H_
#define KERNELS_CPU_SIMD_PORTABLE_H_

#include "kernels/cpu/simd.h"

namespace lapidary::cpu {

struct Portable : VectorOf<Portable, 4> {
  static constexpr int kRegisters = 16;
  static constexpr int kMaxTileRows = 2;
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SIMD_PORTABLE_H_
