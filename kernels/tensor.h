// Views of matrices in a backend's memory.  They own nothing and are cheap to
// copy.

#ifndef KERNELS_TENSOR_H_
#define KERNELS_TENSOR_H_

#include <cstdint>

#include "kernels/bf16.h"

namespace lapidary {

enum class DType : uint8_t { kF32, kBf16 };

constexpr int SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// A row-major matrix [rows, cols] whose rows lie `stride` elements apart.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rows = 0;
  int cols = 0;
  int64_t stride = 0;  // Elements from a row to the next.

  void* row(int r) const {
    return static_cast<char*>(data) + int64_t{r} * stride * SizeOf(dtype);
  }

  // Whether the rows follow each other without gaps.
  bool IsDense() const { return stride == cols || rows <= 1; }

  // Rows [first, first + count).
  Tensor Rows(int first, int count) const {
    return {row(first), dtype, count, cols, stride};
  }

  // Columns [first, first + count).
  Tensor Cols(int first, int count) const {
    return {static_cast<char*>(data) + int64_t{first} * SizeOf(dtype), dtype,
            rows, count, stride};
  }
};

// A weight matrix W [rows, cols] = [out, in], packed for dot products of pairs:
//
//   data  [rows / 16][cols / 2][16][2]
//
// W[r, c] = data[(r / 16) * block_stride + (c / 2) * 32 + (r % 16) * 2 + c %
// 2]. One step of a dot product, a pair of columns for 16 rows, is 64 bytes.
//
// The parts that a rank needs under head split are views:  a range of rows (a
// multiple of 16) moves `data` by whole blocks, a range of columns (even) moves
// it by 16 elements a column and keeps block_stride.
struct PackedMatrix {
  static constexpr int kBlockRows = 16;

  const Bf16* data = nullptr;  // Aligned to 64 bytes.
  int rows = 0;                // A multiple of kBlockRows.
  int cols = 0;                // Even.
  int64_t block_stride = 0;    // Elements from a block of rows to the next.

  PackedMatrix Rows(int first, int count) const {
    return {data + first / kBlockRows * block_stride, count, cols,
            block_stride};
  }
  PackedMatrix Cols(int first, int count) const {
    return {data + int64_t{first} * kBlockRows, rows, count, block_stride};
  }
  Bf16 at(int r, int c) const {
    return data[r / kBlockRows * block_stride + int64_t{c / 2} * 32 +
                r % kBlockRows * 2 + c % 2];
  }
};

}  // namespace lapidary

#endif  // KERNELS_TENSOR_H_
