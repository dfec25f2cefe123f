#include "common/generation_config.h"

#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/read_file.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

constexpr JsonFields::Range kTokenIds = {.min = 0};

// A number of [min, max], or of (min, max] if `min` itself has no meaning.
struct NumberRange {
  double min;
  double max;
  bool excludes_min = false;
};

absl::StatusOr<std::optional<float>> ReadNumber(const JsonFields& fields,
                                                const char* key,
                                                const NumberRange& range) {
  ASSIGN_OR_RETURN(const std::optional<double> value,
                   fields.OptionalNumber(key));
  if (!value.has_value()) return std::nullopt;
  if (!(*value >= range.min && *value <= range.max) ||
      (range.excludes_min && *value == range.min)) {
    return fields.Error(
        key, absl::StrCat("a number ", range.excludes_min ? "above " : "from ",
                          range.min, " to ", range.max));
  }
  return static_cast<float>(*value);
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view text) {
  constexpr double kMax = std::numeric_limits<float>::max();
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(text));
  const JsonFields fields(json, "");
  GenerationConfig config;
  ASSIGN_OR_RETURN(config.temperature,
                   ReadNumber(fields, "temperature", {0, kMax}));
  ASSIGN_OR_RETURN(config.top_k, fields.OptionalInt("top_k", {.min = 0}));
  ASSIGN_OR_RETURN(config.top_p, ReadNumber(fields, "top_p", {0, 1, true}));
  ASSIGN_OR_RETURN(config.min_p, ReadNumber(fields, "min_p", {0, 1}));
  ASSIGN_OR_RETURN(config.repetition_penalty,
                   ReadNumber(fields, "repetition_penalty", {0, kMax, true}));
  ASSIGN_OR_RETURN(config.eos_token_ids,
                   fields.Ints("eos_token_id", kTokenIds));
  ASSIGN_OR_RETURN(config.suppress_tokens,
                   fields.Ints("suppress_tokens", kTokenIds));
  ASSIGN_OR_RETURN(const std::optional<bool> do_sample,
                   fields.OptionalBool("do_sample"));
  if (do_sample == false) config.temperature = 0.0f;
  return config;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(
    const std::string& directory) {
  const std::string path = directory + "/generation_config.json";
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return GenerationConfig();
  RETURN_IF_ERROR(text.status());
  absl::StatusOr<GenerationConfig> config = ParseGenerationConfig(*text);
  if (!config.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", config.status().message()));
  }
  return config;
}

}  // namespace lapidary
