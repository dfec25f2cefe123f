#include "kernels/cpu/isa_select.h"

#include "glog/logging.h"

namespace lapidary::cpu {

const IsaKernels& KernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return PortableKernels();
    case Isa::kAvx2:
      return Avx2Kernels();
    case Isa::kAvx512:
      return Avx512Kernels();
    case Isa::kAvx512Bf16:
      return Avx512Bf16Kernels();
    case Isa::kAuto:
      break;
  }
  LOG(FATAL) << "instruction set not resolved";
}

}  // namespace lapidary::cpu
