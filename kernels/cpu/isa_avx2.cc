#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/simd_avx2.h"

namespace lapidary::cpu {

const IsaKernels& Avx2Kernels() {
  return IsaTable<Avx2, WidenedDot<Avx2>, FloatDot<Avx2>>::kKernels;
}

}  // namespace lapidary::cpu
