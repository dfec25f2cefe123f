// What is compiled once for each instruction set: plain functions that one
// thread calls for a part of an operation.  They allocate nothing.

#ifndef KERNELS_CPU_ISA_KERNELS_H_
#define KERNELS_CPU_ISA_KERNELS_H_

#include <cstdint>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"

namespace lapidary::cpu {

// sums [rows, blocks * 16] = x * w^T over all columns.
struct MatMulBlockArgs {
  // Slices of `slice_cols` columns: x[r, c] is element
  // c / slice_cols * slice_stride + r * row_stride + c % slice_cols.
  const void* x;
  int64_t row_stride;
  int64_t slice_stride;
  int slice_cols;  // Even.
  int cols;
  const Bf16* w;  // As in PackedMatrix.
  int64_t block_stride;
  int rows;
  int blocks;
  float* sums;
};

// Keys are added up in pieces of this many positions, at absolute multiples of
// it, and the pieces in ascending order: so a few queries with many keys can be
// shared by the threads, and get what they would get in a large chunk.
inline constexpr int kPieceTokens = 1024;

// Tokens of a sequence with those heads of q that use one KV head, and one
// piece of keys.  Query row t * num_heads + h is head first_head + h of q at
// token first_token + t.
struct AttendUnit {
  const AttentionSequence* sequence;
  int kv_head;
  int first_head;
  int num_heads;
  int first_token;
  int num_tokens;
  int piece;
};

// Softmax over a part of the keys, for the rows of a unit.  A row that saw no
// key has max = -infinity.
struct AttendState {
  float* max;  // [rows]
  float* sum;  // [rows], of exp(score - max).
  float* out;  // [rows, d], of exp(score - max) * value.
};

// Sizes of buffers in AttendScratch.
inline constexpr int kKeyCopyWords = kPageTokens * 16;
inline constexpr int kPackedWords = kPageTokens * 64;

// Memory of one thread for AttendPiece, in elements of four bytes.
struct AttendScratch {
  void* q;              // [rows, d]
  float* scores;        // [rows, 64]
  void* probabilities;  // [rows, 64]
  void* keys;           // [kKeyCopyWords]: some channels of 64 keys.
  uint32_t* packed;     // [kPackedWords]: a slice of keys or values.
};

struct IsaKernels {
  // What MatMulBlock takes for activations in bf16: bf16, or else fp32.
  DType bf16_operand;

  void (*rms_norm)(const Tensor& x, const Bf16* weight, float epsilon,
                   const Tensor& out);
  void (*add)(const Tensor& x, const Tensor& y, float scale, const Tensor& out);
  void (*gelu_mul)(const Tensor& x, const Tensor& out);
  void (*soft_cap)(const Tensor& x, float cap);
  void (*embed)(const PackedMatrix& table, const TokenId* ids, float scale,
                const Tensor& out);
  void (*qk_norm_rope)(const QkNormRopeArgs& args, int begin, int end);

  // Copies x to slices (see MatMulBlockArgs) with row_stride = slice_cols, in
  // the type that matmul_block takes.
  void (*pack_activations)(const Tensor& x, int slice_cols,
                           int64_t slice_stride, void* packed);
  // `operand` is what x holds: fp32, or bf16 if bf16_operand is that.
  void (*matmul_block)(const MatMulBlockArgs& args, DType operand);
  void (*store_sums)(const float* sums, const Tensor& out);

  // Writes `state` for the rows of `unit`.
  void (*attend_piece)(const AttendArgs& args, const AttendUnit& unit,
                       const AttendScratch& scratch, const AttendState& state);
  // total becomes the softmax over its keys and those of the later `piece`.
  void (*merge_state)(const AttendState& piece, int rows, int head_dim,
                      const AttendState& total);
  // Writes the unit's rows of args.out and args.lse.
  void (*finish_attend)(const AttendArgs& args, const AttendUnit& unit,
                        const AttendState& total);
  // Rows [begin, end).
  void (*merge_attention)(const MergeAttentionArgs& args, int begin, int end);

  // Probes: reads all of [data, data + bytes), a multiple of 1024; computes
  // `steps` times flops_per_dot_step.
  uint64_t (*read_memory)(const void* data, int64_t bytes);
  float (*dot_steps)(int64_t steps);
  int64_t flops_per_dot_step;
};

const IsaKernels& PortableKernels();
const IsaKernels& Avx2Kernels();
const IsaKernels& Avx512Kernels();
const IsaKernels& Avx512Bf16Kernels();

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ISA_KERNELS_H_
