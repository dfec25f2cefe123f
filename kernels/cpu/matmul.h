// A matrix product by all threads.
//
// Its unit of work is up to 512 rows times 64 columns of `out`, over all of K
// in slices: the weights of a slice, 64 columns wide, stay in the first-level
// cache while all rows pass by them.

#ifndef KERNELS_CPU_MATMUL_H_
#define KERNELS_CPU_MATMUL_H_

#include <cstdint>

#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace lapidary::cpu {

class MatMul {
 public:
  // Both must outlive it.
  MatMul(const IsaKernels& kernels, ThreadPool& pool)
      : kernels_(kernels), pool_(pool) {}

  // out = x * w^T.  REQUIRES: the shapes fit (see Backend).
  void Run(const Tensor& x, const PackedMatrix& w, const Tensor& out);

 private:
  // Where the kernel finds x: itself, or a copy in slices.
  struct Activations {
    const void* data;
    DType dtype;
    int64_t row_stride;
    int64_t slice_stride;
    int slice_cols;
  };
  Activations Prepare(const Tensor& x);

  const IsaKernels& kernels_;
  ThreadPool& pool_;
  Scratch packed_;
  Scratch sums_;
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_MATMUL_H_
