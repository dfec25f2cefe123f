// The instruction sets that the CPU kernels are built for.

#ifndef KERNELS_CPU_ISA_H_
#define KERNELS_CPU_ISA_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

enum class Isa {
  kAuto,      // The best that the machine has.
  kPortable,  // What every x86-64 has.
  kAvx2,      // AVX2 and FMA.
  kAvx512,    // AVX-512 F, BW, DQ, VL.
  kAvx512Bf16,
};

// "auto", "portable", "avx2", "avx512", "avx512_bf16".
absl::string_view IsaName(Isa isa);

// Errors: INVALID_ARGUMENT, with the names that there are.
absl::StatusOr<Isa> ParseIsa(absl::string_view name);

// What this machine can run, from least to best, without kAuto.
std::vector<Isa> SupportedIsas();

// The best for kAuto, else `isa` itself.
//
// Errors: FAILED_PRECONDITION if the machine lacks it, with what it has.
absl::StatusOr<Isa> ResolveIsa(Isa isa);

}  // namespace lapidary

#endif  // KERNELS_CPU_ISA_H_
