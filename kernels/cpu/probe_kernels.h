// The loops that probes.h times.

#ifndef KERNELS_CPU_PROBE_KERNELS_H_
#define KERNELS_CPU_PROBE_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/dot_tile.h"

namespace lapidary::cpu {

// Reads all of [data, data + bytes), a multiple of 1024, in four streams.
// The result depends on all that was read, so that nothing is left out.
template <class S>
uint64_t ReadMemory(const void* data, int64_t bytes) {
  constexpr int kStreams = 4;
  constexpr int kWordsAStep = 64;
  typename S::U sums[kStreams] = {};
  const auto* words = static_cast<const uint32_t*>(data);
  const int64_t stream = bytes / 4 / kStreams;
  for (int64_t i = 0; i + kWordsAStep <= stream; i += kWordsAStep) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
#pragma GCC unroll 16
      for (int j = 0; j < kWordsAStep; j += S::kLanes) {
        sums[s] ^= S::LoadWords(words + s * stream + i + j);
      }
    }
  }
  const typename S::U sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t result = 0;
  for (int i = 0; i < S::kLanes; ++i) result += sum[i];
  return result;
}

// Independent chains of multiply-adds, enough to hide their latency.
inline constexpr int kProbeChains = 12;

template <class Dot>
constexpr int64_t kFlopsPerDotStep =
    int64_t{kProbeChains} * Dot::Simd::kLanes* Dot::kXPerStep * 2;

// Multiply-adds in registers, `steps` for each chain.
template <class Dot>
float DotSteps(int64_t steps) {
  using S = typename Dot::Simd;
  // The compiler must not see that all chains compute the same.
  typename S::F sums[kProbeChains] = {};
  uint32_t words[kBlockColumns];
  for (uint32_t& word : words) word = 0x3f803f80;  // Two ones in bf16.
  typename Dot::X x[2] = {};
  asm volatile("" : "+m"(sums), "+m"(words), "+m"(x));
  const typename Dot::Word word = Dot::LoadWords(words);
  const typename Dot::Value value = Dot::Broadcast(x);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kProbeChains; ++c) {
      sums[c] = Dot::Add(sums[c], value, word);
    }
  }
  typename S::F sum = S::Zero();
  for (int c = 0; c < kProbeChains; ++c) sum += sums[c];
  return S::Sum(sum);
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_PROBE_KERNELS_H_
