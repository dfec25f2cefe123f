// The operations that work row by row, for the rows that they are given.

#ifndef KERNELS_CPU_ROW_KERNELS_H_
#define KERNELS_CPU_ROW_KERNELS_H_

#include <cmath>
#include <cstdint>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/bf16.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/tensor.h"

namespace lapidary::cpu {

// 1 / sqrt(mean of x^2 + epsilon), summed in one order for a given length.
template <class S, class T>
float InverseRms(const T* x, int size, float epsilon) {
  using F = typename S::F;
  constexpr int kSums = 4;  // Independent chains of additions.
  F sums[kSums] = {};
  int i = 0;
  for (; i + kSums * S::kLanes <= size; i += kSums * S::kLanes) {
    for (int j = 0; j < kSums; ++j) {
      const F v = S::Load(x + i + j * S::kLanes);
      sums[j] = S::Fma(v, v, sums[j]);
    }
  }
  for (; i + S::kLanes <= size; i += S::kLanes) {
    const F v = S::Load(x + i);
    sums[0] = S::Fma(v, v, sums[0]);
  }
  float sum = S::Sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < size; ++i) {
    const float v = OneLane<S>::Load(x + i)[0];
    sum += v * v;
  }
  return 1.0f / std::sqrt(sum / static_cast<float>(size) + epsilon);
}

template <class S, class T>
void RmsNormRows(const Tensor& x, const Bf16* weight, float epsilon,
                 const Tensor& out) {
  for (int r = 0; r < x.rows; ++r) {
    const T* in = static_cast<const T*>(x.row(r));
    T* to = static_cast<T*>(out.row(r));
    const float scale = InverseRms<S>(in, x.cols, epsilon);
    if (weight == nullptr) {
      ForEachVector<S>(0, x.cols, [&]<class V>(int c) {
        V::Store(V::Load(in + c) * scale, to + c);
      });
    } else {
      ForEachVector<S>(0, x.cols, [&]<class V>(int c) {
        V::Store(V::Load(in + c) * scale * V::Load(weight + c), to + c);
      });
    }
  }
}

template <class S>
void AddRows(const Tensor& x, const Tensor& y, float scale, const Tensor& out) {
  for (int r = 0; r < x.rows; ++r) {
    if (x.dtype == DType::kF32) {
      const auto* a = static_cast<const float*>(x.row(r));
      const auto* b = static_cast<const float*>(y.row(r));
      auto* to = static_cast<float*>(out.row(r));
      ForEachVector<S>(0, x.cols, [&]<class V>(int c) {
        V::Store((V::Load(a + c) + V::Load(b + c)) * scale, to + c);
      });
      continue;
    }
    const auto* a = static_cast<const Bf16*>(x.row(r));
    const auto* b = static_cast<const Bf16*>(y.row(r));
    auto* to = static_cast<Bf16*>(out.row(r));
    ForEachVector<S>(0, x.cols, [&]<class V>(int c) {
      Bf16 sum[V::kLanes];
      V::Store(V::Load(a + c) + V::Load(b + c), sum);
      V::Store(V::Load(sum) * scale, to + c);
    });
  }
}

// gelu_tanh(g) u = g u / (1 + exp(-2 sqrt(2/pi) (g + 0.044715 g^3))).
template <class S, class T>
void GeluMulRows(const Tensor& x, const Tensor& out) {
  constexpr float kTwoSqrtTwoOverPi = 1.5957691216f;
  const int size = out.cols;
  for (int r = 0; r < x.rows; ++r) {
    const T* gate = static_cast<const T*>(x.row(r));
    const T* up = gate + size;
    T* to = static_cast<T*>(out.row(r));
    ForEachVector<S>(0, size, [&]<class V>(int c) {
      const typename V::F g = V::Load(gate + c);
      const typename V::F cube =
          V::Fma(g * g * 0.044715f, g, g) * kTwoSqrtTwoOverPi;
      V::Store(g * Sigmoid<V>(cube) * V::Load(up + c), to + c);
    });
  }
}

template <class S>
void SoftCapRows(const Tensor& x, float cap) {
  const float inverse = 1.0f / cap;
  for (int r = 0; r < x.rows; ++r) {
    auto* row = static_cast<float*>(x.row(r));
    ForEachVector<S>(0, x.cols, [&]<class V>(int c) {
      V::Store(Tanh<V>(V::Load(row + c) * inverse) * cap, row + c);
    });
  }
}

// A row of the table is one 32-bit pair in each 64 bytes.
template <class S, class T>
void EmbedRows(const PackedMatrix& table, const TokenId* ids, float scale,
               const Tensor& out) {
  constexpr int kBlockRows = PackedMatrix::kBlockRows;
  for (int r = 0; r < out.rows; ++r) {
    const Bf16* pairs = table.data + ids[r] / kBlockRows * table.block_stride +
                        ids[r] % kBlockRows * 2;
    T* to = static_cast<T*>(out.row(r));
    for (int c = 0; c < out.cols; c += 2) {
      const Bf16* pair = pairs + int64_t{c} * kBlockRows;
      for (int i = 0; i < 2; ++i) {
        const float value = ToFloat(pair[i]) * scale;
        if constexpr (sizeof(T) == sizeof(float)) {
          to[c + i] = value;
        } else {
          to[c + i] = ToBf16(value);
        }
      }
    }
  }
}

// What turns the pairs (i, i + d/2) of one head at one position.
struct HeadRotation {
  const float* cos;  // [num_angles]
  const float* sin;
  int num_angles;
  int half;  // d / 2.
};

// Calls store.operator()<V>(i, a, b) with each pair of rope(x * scale * norm).
template <class S, class T, class StorePair>
void RotateHead(const T* x, float scale, const Bf16* norm,
                const HeadRotation& rotation, int begin, int end,
                const StorePair& store) {
  const int half = rotation.half;
  const int turning = end < rotation.num_angles ? end : rotation.num_angles;
  ForEachVector<S>(begin, turning, [&]<class V>(int i) {
    const typename V::F a = V::Load(x + i) * scale * V::Load(norm + i);
    const typename V::F b =
        V::Load(x + half + i) * scale * V::Load(norm + half + i);
    const typename V::F cos = V::Load(rotation.cos + i);
    const typename V::F sin = V::Load(rotation.sin + i);
    store.template operator()<V>(i, a * cos - b * sin, b * cos + a * sin);
  });
  const int still = begin > turning ? begin : turning;
  ForEachVector<S>(still, end, [&]<class V>(int i) {
    store.template operator()<V>(
        i, V::Load(x + i) * scale * V::Load(norm + i),
        V::Load(x + half + i) * scale * V::Load(norm + half + i));
  });
}

// A query head, in place: channels outside the stored pairs are multiplied by
// the keys' norm weight as well.
template <class S, class T>
void RotateQuery(const QkNormRopeArgs& args, const HeadRotation& rotation,
                 T* q) {
  const int half = rotation.half;
  const float scale = InverseRms<S>(q, 2 * half, args.epsilon);
  RotateHead<S>(q, scale, args.q_norm, rotation, 0, args.key_half,
                [&]<class V>(int i, auto a, auto b) {
                  V::Store(a, q + i);
                  V::Store(b, q + half + i);
                });
  RotateHead<S>(q, scale, args.q_norm, rotation, args.key_half, half,
                [&]<class V>(int i, auto a, auto b) {
                  V::Store(a * V::Load(args.k_norm + i), q + i);
                  V::Store(b * V::Load(args.k_norm + half + i), q + half + i);
                });
}

// One position's keys and values.
template <class S, class T>
void RotateKeys(const QkNormRopeArgs& args, const HeadRotation& rotation,
                int t) {
  const int d = args.head_dim;
  const int width = 2 * args.key_half;
  const T* k = static_cast<const T*>(args.k.row(t));
  T* keys = static_cast<T*>(args.keys.row(t));
  for (int c = 0; c < args.k.cols; c += d, keys += width) {
    const float scale = InverseRms<S>(k + c, d, args.epsilon);
    RotateHead<S>(k + c, scale, args.k_norm, rotation, 0, args.key_half,
                  [&]<class V>(int i, auto a, auto b) {
                    V::Store(a, keys + i);
                    V::Store(b, keys + args.key_half + i);
                  });
  }
  const T* v = static_cast<const T*>(args.v.row(t));
  T* values = static_cast<T*>(args.values.row(t));
  for (int c = 0; c < args.v.cols; c += d) {
    const float scale = InverseRms<S>(v + c, d, args.epsilon);
    ForEachVector<S>(c, c + d, [&]<class V>(int i) {
      V::Store(V::Load(v + i) * scale, values + i);
    });
  }
}

template <class S, class T>
void QkNormRopeRows(const QkNormRopeArgs& args, int begin, int end) {
  const int d = args.head_dim;
  for (int t = begin; t < end; ++t) {
    const HeadRotation rotation = {
        .cos = args.cos + int64_t{t} * args.num_angles,
        .sin = args.sin + int64_t{t} * args.num_angles,
        .num_angles = args.num_angles,
        .half = d / 2};
    if (args.q.data != nullptr) {
      T* q = static_cast<T*>(args.q.row(t));
      for (int c = 0; c < args.q.cols; c += d) {
        RotateQuery<S>(args, rotation, q + c);
      }
    }
    if (args.k.data != nullptr) RotateKeys<S, T>(args, rotation, t);
  }
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ROW_KERNELS_H_
