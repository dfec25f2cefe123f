#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/simd_avx512_bf16.h"

namespace lapidary::cpu {

const IsaKernels& Avx512Bf16Kernels() {
  return IsaTable<Avx512Bf16, PairDot<Avx512Bf16>,
                  PairDot<Avx512Bf16>>::kKernels;
}

}  // namespace lapidary::cpu
