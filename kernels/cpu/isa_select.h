// The kernels of an instruction set.

#ifndef KERNELS_CPU_ISA_SELECT_H_
#define KERNELS_CPU_ISA_SELECT_H_

#include "kernels/cpu/isa.h"
#include "kernels/cpu/isa_kernels.h"

namespace lapidary::cpu {

// REQUIRES: `isa` is not kAuto, and the machine has it.
const IsaKernels& KernelsFor(Isa isa);

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ISA_SELECT_H_
