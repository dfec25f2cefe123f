// The machine's ceilings, measured, for benchmarks to set their results
// against.  Both change with the machine's other load: measure them in the same
// run, just before or after what is compared with them.

#ifndef KERNELS_CPU_PROBES_H_
#define KERNELS_CPU_PROBES_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cpu/cpu_backend.h"

namespace lapidary {

// Owned by one thread.
class Probes {
 public:
  virtual ~Probes() = default;

  // Bytes a second that all threads read together from memory, out of a buffer
  // much larger than the caches.  Takes about 20 ms.
  virtual double ReadBandwidth() = 0;

  // Floating-point operations a second (a multiply-add is two) of all threads
  // in registers: dot products of bf16 pairs on avx512_bf16, fp32 multiply-adds
  // on the others.  Takes about 5 ms.
  virtual double DotRate() = 0;
};

// Errors: as NewCpuBackend(); RESOURCE_EXHAUSTED for the buffer.
absl::StatusOr<std::unique_ptr<Probes>> NewProbes(const CpuOptions& options);

}  // namespace lapidary

#endif  // KERNELS_CPU_PROBES_H_
