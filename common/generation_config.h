// generation_config.json: how a model's makers want it sampled.

#ifndef COMMON_GENERATION_CONFIG_H_
#define COMMON_GENERATION_CONFIG_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokens.h"

namespace lapidary {

// What the file does not say is empty.
struct GenerationConfig {
  std::optional<float> temperature;  // 0 where the file says no sampling.
  std::optional<int> top_k;          // 0: all.
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::vector<TokenId> eos_token_ids;
  std::vector<TokenId> suppress_tokens;
};

// Errors: INVALID_ARGUMENT, naming the key, what was expected and found.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view json);

// Reads `directory`'s file; the empty config if there is none.
//
// Errors: those of ReadFile() and ParseGenerationConfig(), with the path.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(
    const std::string& directory);

}  // namespace lapidary

#endif  // COMMON_GENERATION_CONFIG_H_
