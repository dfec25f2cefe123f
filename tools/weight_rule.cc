#include "tools/weight_rule.h"

#include <array>
#include <cmath>
#include <regex>

#include "xxhash.h"

namespace lapidary {
namespace {

// Whether a factor is divided by the square root of the tensor's inputs.
enum class Scale { kFixed, kByInputs };

struct Factor {
  double value;
  Scale scale = Scale::kFixed;
};

struct Pattern {
  std::regex name;
  Factor b;
  Factor s;
};

// The first pattern that is found in a name decides; the last fits all.
const Pattern& PatternOf(const std::string& name) {
  static const auto& kPatterns = *new std::array<Pattern, 13>{{
      {std::regex(R"(layer_scalar$)"), {0.8}, {0.2}},
      {std::regex(R"((^|\.)norm\.weight$)"), {4}, {1}},
      {std::regex(R"(self_attn\.k_norm\.weight$)"),
       {2, Scale::kByInputs},
       {0.5, Scale::kByInputs}},
      {std::regex(R"((router\.scale|per_expert_scale)$)"), {1}, {0.25}},
      {std::regex(R"(input_min$|output_min$)"), {-6}, {1}},
      {std::regex(R"(input_max$|output_max$)"), {6}, {1}},
      {std::regex(R"(per_dim_scale$)"), {0}, {0.5}},
      {std::regex(R"(std_bias$)"), {0}, {0.2}},
      {std::regex(R"(std_scale$)"), {1}, {0.25}},
      {std::regex(R"(pos_embedding$|position_embedding_table$)"), {0}, {0.5}},
      {std::regex(R"(\.bias$)"), {0}, {0.1}},
      {std::regex(R"((norm|layernorm|norm_\w+|layer_norm|ln1|ln2|)"
                  R"(layernorm_[12]|patch_ln\d|norm1|norm0|norm_out|norm_conv))"
                  R"(\.weight$)"),
       {1},
       {0.25}},
      {std::regex(""), {0}, {1.7320508, Scale::kByInputs}},
  }};
  size_t i = 0;
  while (!std::regex_search(name, kPatterns[i].name)) ++i;
  return kPatterns[i];
}

// Values that add up to one output of the tensor.
int64_t NumInputs(std::span<const int64_t> shape) {
  if (shape.empty()) return 1;
  if (shape.size() == 1 || shape.size() == 3) return shape.back();
  int64_t inputs = 1;
  for (const int64_t size : shape.subspan(1)) inputs *= size;
  return inputs;
}

float Resolve(const Factor& factor, int64_t num_inputs) {
  if (factor.scale == Scale::kFixed) return static_cast<float>(factor.value);
  return static_cast<float>(factor.value /
                            std::sqrt(static_cast<double>(num_inputs)));
}

}  // namespace

uint64_t SplitMix64(uint64_t key, uint64_t index) {
  uint64_t z = key + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

WeightRule::WeightRule(const std::string& name, std::span<const int64_t> shape,
                       uint64_t seed)
    : key_(XXH3_64bits_withSeed(name.data(), name.size(), seed)) {
  const Pattern& pattern = PatternOf(name);
  b_ = Resolve(pattern.b, NumInputs(shape));
  s_ = Resolve(pattern.s, NumInputs(shape));
}

// Compiled with -ffp-contract=off: the product is rounded before it is added.
void WeightRule::Fill(int64_t first, std::span<Bf16> values) const {
  auto index = static_cast<uint64_t>(first);
  for (Bf16& value : values) {
    const uint64_t z = SplitMix64(key_, index++);
    const float u = static_cast<float>(z >> 40) / 8388608.0f - 1.0f;
    value = ToBf16(b_ + s_ * u);
  }
}

}  // namespace lapidary
