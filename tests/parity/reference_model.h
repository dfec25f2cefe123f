// A Gemma 4 text model in doubles, straight from its formulas:
// the whole sequence at once, no pages, no chunks, no packed weights, and keys
// whole on every layer.  Slow; an oracle for small configs.

#ifndef TESTS_PARITY_REFERENCE_MODEL_H_
#define TESTS_PARITY_REFERENCE_MODEL_H_

#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokens.h"

namespace lapidary {

// What config.json says, by the spec's letters.
struct SmallConfig {
  int hidden_size = 64;         // h
  int intermediate_size = 128;  // ff
  int vocab_size = 512;
  int num_heads = 4;            // H
  int num_kv_heads = 2;         // K of sliding layers.
  int num_global_kv_heads = 1;  // K of full layers, if k_eq_v.
  int head_dim = 16;            // d of sliding layers.
  int global_head_dim = 32;     // d of full layers.
  int window = 64;              // W
  bool k_eq_v = true;
  double rotating_part = 0.25;  // partial_rotary_factor of full layers.
  double softcap = 30;          // 0: none.
  std::vector<bool> is_global = {false, true};  // By layer; the last is.
};

// The file that describes it.
std::string ConfigJson(const SmallConfig& config);

// Tensors by their names after the text prefix, row-major.
using ReferenceWeights = std::map<std::string, std::vector<double>>;

// Errors: those of SafetensorsFile.
absl::StatusOr<ReferenceWeights> ReadReferenceWeights(
    const std::string& checkpoint_dir);

// Logits [vocab] at each of `positions`.
std::vector<std::vector<double>> ReferenceLogits(
    const SmallConfig& config, const ReferenceWeights& weights,
    std::span<const TokenId> tokens, std::span<const int> positions);

}  // namespace lapidary

#endif  // TESTS_PARITY_REFERENCE_MODEL_H_
