#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/simd_portable.h"

namespace lapidary::cpu {

const IsaKernels& PortableKernels() {
  return IsaTable<Portable, WidenedDot<Portable>, FloatDot<Portable>>::kKernels;
}

}  // namespace lapidary::cpu
