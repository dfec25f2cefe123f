// The backend on CPU cores.

#ifndef KERNELS_CPU_CPU_BACKEND_H_
#define KERNELS_CPU_CPU_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace lapidary {

struct CpuOptions {
  // Threads that compute, the caller's among them.  0: one a core that the
  // process may use.
  int threads = 0;
  Isa isa = Isa::kAuto;
};

// Operations are done when they return; Synchronize() is always OK.  Results
// are the same, bit for bit, with any number of threads, but differ from one
// instruction set to another.
//
// Errors: INVALID_ARGUMENT for a negative number of threads;
// FAILED_PRECONDITION if the machine lacks the instruction set.
absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(
    const CpuOptions& options);

}  // namespace lapidary

#endif  // KERNELS_CPU_CPU_BACKEND_H_
