// Merging of softmaxes over disjoint keys: see MergeAttentionArgs.

#ifndef KERNELS_CPU_MERGE_KERNEL_H_
#define KERNELS_CPU_MERGE_KERNEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/attention.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_math.h"

namespace lapidary::cpu {

// The parts that count for one row and head, and their shares of the result.
struct MergeShares {
  const float* out[MergeAttentionArgs::kMaxParts];  // [d] each.
  float weight[MergeAttentionArgs::kMaxParts];
  int count = 0;
  float lse = -std::numeric_limits<float>::infinity();
  float scale = 0;  // 1 / sum of the weights.
};

template <class S>
void FindShares(const MergeAttentionArgs& args, int row, int head, int head_dim,
                MergeShares& shares) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  shares.count = 0;
  shares.lse = kNothing;
  float max = kNothing;
  for (const AttentionPart& part : args.parts) {
    const float lse = static_cast<const float*>(part.lse.row(row))[head];
    if (lse == kNothing) continue;
    shares.out[shares.count] =
        static_cast<const float*>(part.out.row(row)) + int64_t{head} * head_dim;
    shares.weight[shares.count] = lse;
    max = std::max(max, lse);
    ++shares.count;
  }
  if (shares.count == 0) return;
  float sum = 0;
  for (int i = 0; i < shares.count; ++i) {
    shares.weight[i] = Exp<S>(S::Set(shares.weight[i] - max))[0];
    sum += shares.weight[i];
  }
  shares.lse = max + std::log(sum);
  shares.scale = 1.0f / sum;
}

// `out` may be that of the first part.
template <class S, class T>
void MergeHead(const MergeShares& shares, int head_dim, T* out) {
  ForEachVector<S>(0, head_dim, [&]<class V>(int c) {
    typename V::F sum = V::Load(shares.out[0] + c) * shares.weight[0];
    for (int i = 1; i < shares.count; ++i) {
      sum = V::Fma(V::Load(shares.out[i] + c), V::Set(shares.weight[i]), sum);
    }
    V::Store(sum * shares.scale, out + c);
  });
}

template <class S, class T>
void MergeAttentionRows(const MergeAttentionArgs& args, int begin, int end) {
  const int d = args.out.cols / args.num_heads;
  MergeShares shares;
  for (int row = begin; row < end; ++row) {
    for (int head = 0; head < args.num_heads; ++head) {
      FindShares<S>(args, row, head, d, shares);
      T* out = static_cast<T*>(args.out.row(row)) + int64_t{head} * d;
      if (shares.count == 0) {
        ClearRow<S>(d, out);
      } else {
        MergeHead<S>(shares, d, out);
      }
      if (args.lse.data != nullptr) {
        static_cast<float*>(args.lse.row(row))[head] = shares.lse;
      }
    }
  }
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_MERGE_KERNEL_H_
