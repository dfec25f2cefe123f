// Weights that are a function of a tensor's name, a seed and an index, so that
// a checkpoint of any size can be written anywhere, bit for bit the same:
//
//   key = XXH3_64(name, seed);  z = SplitMix64(key, index)
//   u = float32(z >> 40) / 2^23 - 1, uniform in [-1, 1)
//   value = bf16(b + s * u)
//
// b and s follow from the name and the shape: norms lie around their usual
// size, and matrices have variance 1 / inputs, so that activations stay near 1
// through any number of layers.

#ifndef TOOLS_WEIGHT_RULE_H_
#define TOOLS_WEIGHT_RULE_H_

#include <cstdint>
#include <span>
#include <string>

#include "kernels/bf16.h"

namespace lapidary {

// Number `index` of the SplitMix64 sequence that starts at `key`.
uint64_t SplitMix64(uint64_t key, uint64_t index);

// The values of one tensor.
class WeightRule {
 public:
  WeightRule(const std::string& name, std::span<const int64_t> shape,
             uint64_t seed);

  // Writes the values of indices `first`, `first` + 1, … to `values`.
  void Fill(int64_t first, std::span<Bf16> values) const;

 private:
  uint64_t key_;
  float b_;
  float s_;
};

}  // namespace lapidary

#endif  // TOOLS_WEIGHT_RULE_H_
