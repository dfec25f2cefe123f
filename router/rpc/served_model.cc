#include "router/rpc/served_model.h"

#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

constexpr JsonFields::Range kPositive = {1, std::numeric_limits<int>::max()};
constexpr JsonFields::Range kToken = {0, std::numeric_limits<int>::max()};

// E2B and E4B, the models with per-layer embeddings, have the small template.
absl::StatusOr<TemplateVariant> VariantOf(const std::string& model_type,
                                          const JsonFields& text) {
  if (absl::StartsWith(model_type, "gemma4_unified"))
    return TemplateVariant::kLarge;
  ASSIGN_OR_RETURN(const int width,
                   text.Int("hidden_size_per_layer_input", 256, kToken));
  return width > 0 ? TemplateVariant::kSmall : TemplateVariant::kLarge;
}

absl::Status ReadConfig(const JsonFields& config, ServedModel& model) {
  ASSIGN_OR_RETURN(const auto model_type, config.OptionalString("model_type"));
  model.model_type = model_type.value_or("");
  if (!absl::StartsWith(model.model_type, "gemma4"))
    return config.Error("model_type", "a model of the gemma4 family");
  ASSIGN_OR_RETURN(const auto nested, config.OptionalObject("text_config"));
  const JsonFields& text = nested.has_value() ? *nested : config;
  const bool unified = absl::StartsWith(model.model_type, "gemma4_unified");
  ASSIGN_OR_RETURN(model.vocab_size, text.Int("vocab_size", 262144, kPositive));
  ASSIGN_OR_RETURN(model.max_context_tokens,
                   text.Int("max_position_embeddings",
                            unified ? 262144 : 131072, kPositive));
  ASSIGN_OR_RETURN(model.bos_token, text.Int("bos_token_id", 2, kToken));
  ASSIGN_OR_RETURN(model.template_variant, VariantOf(model.model_type, text));
  ASSIGN_OR_RETURN(model.stop_tokens, config.Ints("eos_token_id", kToken));
  if (model.stop_tokens.empty()) {
    ASSIGN_OR_RETURN(model.stop_tokens, text.Ints("eos_token_id", kToken));
  }
  return absl::OkStatus();
}

void ApplyGenerationConfig(const GenerationConfig& config, ServedModel& model) {
  v1::Sampling& sampling = model.default_sampling;
  sampling.set_temperature(config.temperature.value_or(1));
  sampling.set_top_k(config.top_k.value_or(0));
  sampling.set_top_p(config.top_p.value_or(1));
  sampling.set_min_p(config.min_p.value_or(0));
  sampling.set_repetition_penalty(config.repetition_penalty.value_or(1));
  sampling.set_presence_penalty(0);
  sampling.set_frequency_penalty(0);
  if (!config.eos_token_ids.empty()) model.stop_tokens = config.eos_token_ids;
  model.suppressed_tokens = config.suppress_tokens;
}

// The directory's chat template; empty if it has none.
absl::StatusOr<std::string> ReadTemplate(const std::string& directory) {
  auto text = ReadFile(directory + "/chat_template.jinja");
  if (text.ok() || !absl::IsNotFound(text.status())) return text;
  const auto config = ReadFile(directory + "/tokenizer_config.json");
  if (absl::IsNotFound(config.status())) return std::string();
  RETURN_IF_ERROR(config.status());
  const auto json = nlohmann::json::parse(*config, nullptr, false);
  const auto it = json.find("chat_template");
  return it != json.end() && it->is_string() ? it->get<std::string>()
                                             : std::string();
}

absl::Status CompareTemplate(const std::string& directory, ServedModel& model) {
  ASSIGN_OR_RETURN(const std::string text, ReadTemplate(directory));
  if (text.empty()) return absl::OkStatus();
  const char* rendered =
      model.template_variant == TemplateVariant::kLarge ? "large" : "small";
  const std::optional<TemplateVariant> found = VariantOfTemplate(text);
  if (found == model.template_variant) return absl::OkStatus();
  model.template_warning = absl::StrCat(
      "the chat template in ", model.name, " is ",
      found.has_value() ? "the published one of another model size"
                        : "neither of the published ones",
      "; the published '", rendered, "' template is rendered instead");
  return absl::OkStatus();
}

absl::Status CheckTokens(const ServedModel& model) {
  if (model.tokenizer->vocab_size() > model.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer.json has ", model.tokenizer->vocab_size(),
        " tokens, more than vocab_size ", model.vocab_size, " of config.json"));
  }
  for (const auto* tokens : {&model.stop_tokens, &model.suppressed_tokens}) {
    for (const TokenId token : *tokens) {
      if (token >= 0 && token < model.vocab_size) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("generation_config.json names token ", token,
                       ", needs one from 0 to ", model.vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

std::string DirectoryName(const std::string& directory) {
  std::filesystem::path path =
      std::filesystem::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ServedModel>> ServedModel::Load(
    const std::string& directory) {
  auto model = std::make_unique<ServedModel>();
  model->name = DirectoryName(directory);
  ASSIGN_OR_RETURN(const std::string config_text,
                   ReadFile(directory + "/config.json"));
  const auto config = ParseJsonObject(config_text);
  const absl::Status read = config.ok()
                                ? ReadConfig(JsonFields(*config, ""), *model)
                                : config.status();
  if (!read.ok()) {
    return absl::Status(
        read.code(), absl::StrCat(directory, "/config.json: ", read.message()));
  }
  ASSIGN_OR_RETURN(const GenerationConfig generation,
                   ReadGenerationConfig(directory));
  ApplyGenerationConfig(generation, *model);
  ASSIGN_OR_RETURN(model->tokenizer,
                   Tokenizer::Load(directory + "/tokenizer.json"));
  model->max_prompt_bytes =
      int64_t{model->max_context_tokens} * model->tokenizer->max_token_bytes();
  ASSIGN_OR_RETURN(model->digests, DigestModelFiles(directory));
  RETURN_IF_ERROR(CompareTemplate(directory, *model));
  RETURN_IF_ERROR(CheckTokens(*model));
  return std::unique_ptr<const ServedModel>(std::move(model));
}

}  // namespace lapidary
