// Packing of weights into PackedMatrix's layout, and back.

#ifndef KERNELS_PACK_H_
#define KERNELS_PACK_H_

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/tensor.h"

namespace lapidary {

// Packs `row_major` [rows, cols] densely (block_stride = 16 * cols).  Blocks of
// 16 rows are independent: callers with many threads give each a range of them.
//
// REQUIRES: rows is a multiple of 16, cols is even.
void PackRows(const Bf16* row_major, int rows, int cols, Bf16* packed);

// The inverse: writes `matrix` to `row_major` [rows, cols].
void UnpackRows(const PackedMatrix& matrix, Bf16* row_major);

}  // namespace lapidary

#endif  // KERNELS_PACK_H_
