#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/simd_avx512.h"

namespace lapidary::cpu {

const IsaKernels& Avx512Kernels() {
  return IsaTable<Avx512, WidenedDot<Avx512>, FloatDot<Avx512>>::kKernels;
}

}  // namespace lapidary::cpu
