#include "worker/parallel/rank_sum.h"

#include <algorithm>

#include "glog/logging.h"
#include "kernels/bf16.h"

namespace lapidary {
namespace {

// Values summed at a time: their fp32 sums stay in the first-level cache.
constexpr int kBlock = 1024;

float AsFloat(float value) { return value; }
float AsFloat(Bf16 value) { return ToFloat(value); }

void Round(float value, float& out) { out = value; }
void Round(float value, Bf16& out) { out = ToBf16(value); }

template <typename T>
void Set(const T* __restrict values, int count, float* __restrict sums) {
  for (int i = 0; i < count; ++i) sums[i] = AsFloat(values[i]);
}

template <typename T>
void Add(const T* __restrict values, int count, float* __restrict sums) {
  for (int i = 0; i < count; ++i) sums[i] += AsFloat(values[i]);
}

template <typename T>
void Store(const float* __restrict sums, int count, T* __restrict out) {
  for (int i = 0; i < count; ++i) Round(sums[i], out[i]);
}

template <typename T>
void SumBlocks(std::span<const void* const> parts, int64_t count, T* out) {
  float sums[kBlock];
  for (int64_t first = 0; first < count; first += kBlock) {
    const int size = static_cast<int>(std::min<int64_t>(kBlock, count - first));
    Set(static_cast<const T*>(parts.front()) + first, size, sums);
    for (const void* part : parts.subspan(1)) {
      Add(static_cast<const T*>(part) + first, size, sums);
    }
    Store(sums, size, out + first);
  }
}

}  // namespace

void SumInOrder(std::span<const void* const> parts, DType dtype, int64_t count,
                void* out) {
  CHECK(!parts.empty());
  if (dtype == DType::kF32) {
    SumBlocks(parts, count, static_cast<float*>(out));
  } else {
    SumBlocks(parts, count, static_cast<Bf16*>(out));
  }
}

}  // namespace lapidary
