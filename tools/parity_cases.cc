#include "tools/parity_cases.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using Json = nlohmann::json;

absl::Status Malformed(const ParityCase& parity_case, absl::string_view key,
                       absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "case '", parity_case.id, "' needs '", key, "' to be ", expected));
}

// Number i of the sequence that `seed` begins.
uint64_t SplitMix64(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

template <typename T>
absl::Status ReadNumbers(const Json& json, const char* key,
                         const ParityCase& parity_case,
                         std::vector<T>& numbers) {
  const auto it = json.find(key);
  if (it == json.end()) return absl::OkStatus();
  if (!it->is_array()) return Malformed(parity_case, key, "a list");
  for (const Json& number : *it) {
    if (!number.is_number()) {
      return Malformed(parity_case, key, "a list of numbers");
    }
    numbers.push_back(number.get<T>());
  }
  return absl::OkStatus();
}

// ids[0] = 2; ids[i] = low + splitmix64(seed, i) mod (high - low)
absl::Status TokensByRule(const Json& rule, ParityCase& parity_case) {
  constexpr TokenId kBos = 2;
  for (const char* key : {"seed", "length", "low", "high"}) {
    const auto it = rule.find(key);
    if (it == rule.end() || !it->is_number_unsigned()) {
      return Malformed(parity_case, absl::StrCat("tokens_rule.", key),
                       "a non-negative number");
    }
  }
  const auto seed = rule["seed"].get<uint64_t>();
  const auto length = rule["length"].get<int>();
  const auto low = rule["low"].get<TokenId>();
  const auto high = rule["high"].get<TokenId>();
  if (low >= high) {
    return Malformed(parity_case, "tokens_rule.high", "above tokens_rule.low");
  }
  parity_case.tokens = {kBos};
  for (int i = 1; i < length; ++i) {
    parity_case.tokens.push_back(
        low + static_cast<TokenId>(SplitMix64(seed, i) % (high - low)));
  }
  return absl::OkStatus();
}

absl::StatusOr<ParityCase> ParseCase(const Json& json) {
  ParityCase parity_case;
  if (!json.is_object() || !json.contains("id") || !json["id"].is_string()) {
    return absl::InvalidArgumentError("each case needs an 'id'");
  }
  parity_case.id = json["id"].get<std::string>();
  const auto rule = json.find("tokens_rule");
  if (rule != json.end()) {
    RETURN_IF_ERROR(TokensByRule(*rule, parity_case));
  } else {
    RETURN_IF_ERROR(
        ReadNumbers(json, "tokens", parity_case, parity_case.tokens));
  }
  RETURN_IF_ERROR(
      ReadNumbers(json, "positions", parity_case, parity_case.positions));
  RETURN_IF_ERROR(ReadNumbers(json, "greedy", parity_case, parity_case.greedy));
  RETURN_IF_ERROR(ReadNumbers(json, "greedy_margin", parity_case,
                              parity_case.greedy_margin));
  if (json.contains("bf16_rms_error") && json["bf16_rms_error"].is_number()) {
    parity_case.bf16_rms_error = json["bf16_rms_error"].get<double>();
  }
  if (parity_case.tokens.empty()) {
    return Malformed(parity_case, "tokens", "a list that is not empty");
  }
  for (const int position : parity_case.positions) {
    if (position < 0 ||
        position >= static_cast<int>(parity_case.tokens.size())) {
      return Malformed(parity_case, "positions", "inside the prompt");
    }
  }
  if (parity_case.greedy.size() != parity_case.greedy_margin.size()) {
    return Malformed(parity_case, "greedy_margin", "as long as 'greedy'");
  }
  return parity_case;
}

}  // namespace

absl::StatusOr<std::vector<ParityCase>> ReadParityCases(
    const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("cases") ||
      !json["cases"].is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " needs to be a JSON object with a list 'cases'"));
  }
  std::vector<ParityCase> cases;
  for (const Json& element : json["cases"]) {
    absl::StatusOr<ParityCase> parity_case = ParseCase(element);
    if (!parity_case.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": ", parity_case.status().message()));
    }
    cases.push_back(*std::move(parity_case));
  }
  return cases;
}

absl::StatusOr<std::span<const float>> ReferenceLogits(
    const SafetensorsFile& reference, const ParityCase& parity_case,
    int vocab_size) {
  const std::string name = parity_case.id + ".logits";
  const StoredTensor* tensor = reference.Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the reference has no ", name));
  }
  const std::vector<int64_t> expected = {
      static_cast<int64_t>(parity_case.positions.size()), vocab_size};
  if (tensor->dtype != "F32" || tensor->shape != expected) {
    return absl::FailedPreconditionError(absl::StrCat(
        "needs ", name, " to be F32 ", FormatShape(expected), ", it is ",
        tensor->dtype, " ", FormatShape(tensor->shape)));
  }
  return std::span<const float>(
      reinterpret_cast<const float*>(tensor->data.data()),
      tensor->data.size() / sizeof(float));
}

}  // namespace lapidary
