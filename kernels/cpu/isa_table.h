// Fills IsaKernels with the kernels' instances for one struct of vectors.

#ifndef KERNELS_CPU_ISA_TABLE_H_
#define KERNELS_CPU_ISA_TABLE_H_

#include <cstdint>
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/bf16.h"
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/merge_kernel.h"
#include "kernels/cpu/probe_kernels.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/tensor.h"

namespace lapidary::cpu {

// WeightDot and KeyDot are how bf16 activations meet weights and stored keys.
template <class S, class WeightDot, class KeyDot>
struct IsaTable {
  using BfX = typename WeightDot::X;

  static void RmsNorm(const Tensor& x, const Bf16* weight, float epsilon,
                      const Tensor& out) {
    if (x.dtype == DType::kF32) {
      RmsNormRows<S, float>(x, weight, epsilon, out);
    } else {
      RmsNormRows<S, Bf16>(x, weight, epsilon, out);
    }
  }

  static void GeluMul(const Tensor& x, const Tensor& out) {
    if (x.dtype == DType::kF32) {
      GeluMulRows<S, float>(x, out);
    } else {
      GeluMulRows<S, Bf16>(x, out);
    }
  }

  static void Embed(const PackedMatrix& table, const TokenId* ids, float scale,
                    const Tensor& out) {
    if (out.dtype == DType::kF32) {
      EmbedRows<S, float>(table, ids, scale, out);
    } else {
      EmbedRows<S, Bf16>(table, ids, scale, out);
    }
  }

  static void QkNormRope(const QkNormRopeArgs& args, int begin, int end) {
    const Tensor& given = args.q.data != nullptr ? args.q : args.k;
    if (given.dtype == DType::kF32) {
      QkNormRopeRows<S, float>(args, begin, end);
    } else {
      QkNormRopeRows<S, Bf16>(args, begin, end);
    }
  }

  static void Pack(const Tensor& x, int slice_cols, int64_t slice_stride,
                   void* packed) {
    if (x.dtype == DType::kF32) {
      PackActivations<S, float, float>(x, slice_cols, slice_stride, packed);
    } else {
      PackActivations<S, BfX, Bf16>(x, slice_cols, slice_stride, packed);
    }
  }

  static void MatMul(const MatMulBlockArgs& args, DType operand) {
    if (operand == DType::kF32) {
      MatMulBlock<WidenedDot<S>>(args);
    } else {
      MatMulBlock<WeightDot>(args);
    }
  }

  static void Store(const float* sums, const Tensor& out) {
    if (out.dtype == DType::kF32) {
      StoreSums<S, float>(sums, out);
    } else {
      StoreSums<S, Bf16>(sums, out);
    }
  }

  static void Attend(const AttendArgs& args, const AttendUnit& unit,
                     const AttendScratch& scratch, const AttendState& state) {
    if (args.planes.dtype == DType::kF32) {
      AttendPiece<FloatDot<S>, float>(args, unit, scratch, state);
    } else {
      AttendPiece<KeyDot, Bf16>(args, unit, scratch, state);
    }
  }

  static void Finish(const AttendArgs& args, const AttendUnit& unit,
                     const AttendState& total) {
    if (args.out.dtype == DType::kF32) {
      FinishAttend<S, float>(args, unit, total);
    } else {
      FinishAttend<S, Bf16>(args, unit, total);
    }
  }

  static void MergeAttention(const MergeAttentionArgs& args, int begin,
                             int end) {
    if (args.out.dtype == DType::kF32) {
      MergeAttentionRows<S, float>(args, begin, end);
    } else {
      MergeAttentionRows<S, Bf16>(args, begin, end);
    }
  }

  static constexpr IsaKernels kKernels = {
      .bf16_operand = std::is_same_v<BfX, float> ? DType::kF32 : DType::kBf16,
      .rms_norm = RmsNorm,
      .add = AddRows<S>,
      .gelu_mul = GeluMul,
      .soft_cap = SoftCapRows<S>,
      .embed = Embed,
      .qk_norm_rope = QkNormRope,
      .pack_activations = Pack,
      .matmul_block = MatMul,
      .store_sums = Store,
      .attend_piece = Attend,
      .merge_state = MergeState<S>,
      .finish_attend = Finish,
      .merge_attention = MergeAttention,
      .read_memory = ReadMemory<S>,
      .dot_steps = DotSteps<WeightDot>,
      .flops_per_dot_step = kFlopsPerDotStep<WeightDot>,
  };
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ISA_TABLE_H_
