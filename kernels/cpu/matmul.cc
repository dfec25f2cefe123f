#include "kernels/cpu/matmul.h"

#include <algorithm>

namespace lapidary::cpu {
namespace {

constexpr int kBlockRows = PackedMatrix::kBlockRows;
constexpr int kTaskBlocks = 4;  // 64 columns.
constexpr int kTaskRows = 512;
// Columns of x whose weights, 64 wide, fit in the first-level cache.
constexpr int kSliceCols = 128;
// Up to here rows are read where they are.
constexpr int kMaxDirectRows = 16;
constexpr int kPackRows = 16;  // Rows that a thread copies at a time.

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace

MatMul::Activations MatMul::Prepare(const Tensor& x) {
  const DType dtype =
      x.dtype == DType::kF32 ? DType::kF32 : kernels_.bf16_operand;
  const int slice_cols = kSliceCols;
  if (dtype == x.dtype && x.rows <= kMaxDirectRows) {
    return {.data = x.data,
            .dtype = dtype,
            .row_stride = x.stride,
            .slice_stride = slice_cols,
            .slice_cols = slice_cols};
  }
  const int64_t slice_stride = int64_t{x.rows} * slice_cols;
  char* packed = static_cast<char*>(packed_.Reserve(
      CeilDiv(x.cols, slice_cols) * slice_stride * SizeOf(dtype)));
  pool_.ParallelFor(CeilDiv(x.rows, kPackRows), [&](int item, int) {
    const int first = item * kPackRows;
    const int count = std::min(kPackRows, x.rows - first);
    kernels_.pack_activations(
        x.Rows(first, count), slice_cols, slice_stride,
        packed + int64_t{first} * slice_cols * SizeOf(dtype));
  });
  return {.data = packed,
          .dtype = dtype,
          .row_stride = slice_cols,
          .slice_stride = slice_stride,
          .slice_cols = slice_cols};
}

void MatMul::Run(const Tensor& x, const PackedMatrix& w, const Tensor& out) {
  const Activations activations = Prepare(x);
  const int blocks = w.rows / kBlockRows;
  const int row_tasks = CeilDiv(x.rows, kTaskRows);
  const int64_t sums_size =
      int64_t{std::min(x.rows, kTaskRows)} * kTaskBlocks * kBlockRows;
  auto* sums = static_cast<float*>(
      sums_.Reserve(pool_.num_threads() * sums_size * sizeof(float)));

  const int num_items = row_tasks * CeilDiv(blocks, kTaskBlocks);
  pool_.ParallelFor(num_items, [&](int item, int thread) {
    const int first_row = item % row_tasks * kTaskRows;
    const int first_block = item / row_tasks * kTaskBlocks;
    const MatMulBlockArgs args = {
        .x = static_cast<const char*>(activations.data) +
             first_row * activations.row_stride * SizeOf(activations.dtype),
        .row_stride = activations.row_stride,
        .slice_stride = activations.slice_stride,
        .slice_cols = activations.slice_cols,
        .cols = w.cols,
        .w = w.data + first_block * w.block_stride,
        .block_stride = w.block_stride,
        .rows = std::min(kTaskRows, x.rows - first_row),
        .blocks = std::min(kTaskBlocks, blocks - first_block),
        .sums = sums + thread * sums_size};
    kernels_.matmul_block(args, activations.dtype);
    kernels_.store_sums(args.sums, out.Rows(first_row, args.rows)
                                       .Cols(first_block * kBlockRows,
                                             args.blocks * kBlockRows));
  });
}

}  // namespace lapidary::cpu
