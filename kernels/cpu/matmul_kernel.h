// The part of a matrix product that one thread computes at a time.

#ifndef KERNELS_CPU_MATMUL_KERNEL_H_
#define KERNELS_CPU_MATMUL_KERNEL_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/simd.h"

namespace lapidary::cpu {

// Copies rows to the panels that MatMulBlock reads, in the Dot's type.
template <class S, class X, class T>
void PackActivations(const Tensor& x, int slice_cols, int64_t slice_stride,
                     void* packed) {
  for (int r = 0; r < x.rows; ++r) {
    const T* from = static_cast<const T*>(x.row(r));
    for (int c = 0; c < x.cols; c += slice_cols) {
      const int count = std::min(slice_cols, x.cols - c);
      CopyRow<S>(from + c, count,
                 static_cast<X*>(packed) + c / slice_cols * slice_stride +
                     int64_t{r} * slice_cols);
    }
  }
}

template <class Dot>
void MatMulBlock(const MatMulBlockArgs& args) {
  using X = typename Dot::X;
  const int columns = args.blocks * kBlockColumns;
  if (args.cols == 0) {
    ClearRow<typename Dot::Simd>(args.rows * columns, args.sums);
  }
  for (int c = 0; c < args.cols; c += args.slice_cols) {
    const int count = std::min(args.slice_cols, args.cols - c);
    DotPanel<Dot>({.x = static_cast<const X*>(args.x) +
                        c / args.slice_cols * args.slice_stride,
                   .x_stride = args.row_stride,
                   .w = reinterpret_cast<const uint32_t*>(args.w) +
                        int64_t{c} / 2 * kBlockColumns,
                   .block_stride = args.block_stride / 2,
                   .out = args.sums,
                   .out_stride = columns,
                   .steps = count / 2,
                   .accumulate = c > 0},
                  args.rows, args.blocks);
  }
}

// Writes a block's sums [out.rows, out.cols] to `out`.
template <class S, class T>
void StoreSums(const float* sums, const Tensor& out) {
  for (int r = 0; r < out.rows; ++r) {
    T* to = static_cast<T*>(out.row(r));
    const float* from = sums + int64_t{r} * out.cols;
    CopyRow<S>(from, out.cols, to);
  }
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_MATMUL_KERNEL_H_
