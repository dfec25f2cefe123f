#include "tools/tensor_list.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/status_macros.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"

namespace lapidary {
namespace {

constexpr JsonFields::Range kSizes = {.min = 1, .max = 1 << 24};
constexpr char kTextPrefix[] = "model.language_model.";

void AddText(const GemmaConfig& config, std::vector<NamedShape>& tensors) {
  for (const TensorSpec& spec : GemmaTensors(config)) {
    if (spec.optional) continue;
    // A head of its own stands beside the text model.
    const bool head = spec.name == "lm_head.weight";
    NamedShape tensor{absl::StrCat(head ? "" : kTextPrefix, spec.name),
                      {spec.rows, spec.cols}};
    if (spec.form == TensorForm::kPlain) tensor.shape = {spec.cols};
    tensors.push_back(std::move(tensor));
  }
}

// The unified model embeds patches of pixels itself: no tower.
absl::Status AddUnifiedVision(const JsonFields& vision, int hidden_size,
                              std::vector<NamedShape>& tensors) {
  ASSIGN_OR_RETURN(const int patch, vision.Int("patch_size", 16, {1, 256}));
  ASSIGN_OR_RETURN(const int pooling,
                   vision.Int("pooling_kernel_size", 3, {1, 64}));
  ASSIGN_OR_RETURN(const int64_t embed,
                   vision.Int("mm_embed_dim", hidden_size, kSizes));
  ASSIGN_OR_RETURN(const int64_t positions,
                   vision.Int("mm_posemb_size", 1120, kSizes));
  const int64_t side = int64_t{patch} * pooling;
  const int64_t pixels = side * side * 3;
  const std::string prefix = "model.vision_embedder.";
  for (const auto& [name, size] :
       {std::pair("patch_ln1", pixels), std::pair("patch_ln2", embed),
        std::pair("pos_norm", embed)}) {
    tensors.push_back({absl::StrCat(prefix, name, ".weight"), {size}});
    tensors.push_back({absl::StrCat(prefix, name, ".bias"), {size}});
  }
  tensors.push_back({prefix + "patch_dense.weight", {embed, pixels}});
  tensors.push_back({prefix + "patch_dense.bias", {embed}});
  tensors.push_back({prefix + "pos_embedding", {positions, 2, embed}});
  tensors.push_back(
      {"model.embed_vision.embedding_projection.weight", {hidden_size, embed}});
  return absl::OkStatus();
}

absl::Status AddUnifiedAudio(const JsonFields& audio, int hidden_size,
                             std::vector<NamedShape>& tensors) {
  ASSIGN_OR_RETURN(const int64_t embed,
                   audio.Int("audio_embed_dim", 640, kSizes));
  tensors.push_back(
      {"model.embed_audio.embedding_projection.weight", {hidden_size, embed}});
  return absl::OkStatus();
}

}  // namespace

// Families come in as ParseGemmaConfig learns them.
absl::StatusOr<std::vector<NamedShape>> CheckpointTensors(
    absl::string_view config_text) {
  ASSIGN_OR_RETURN(const GemmaConfig config, ParseGemmaConfig(config_text));
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(config_text));
  const JsonFields root(json, "");
  std::vector<NamedShape> tensors;
  AddText(config, tensors);
  ASSIGN_OR_RETURN(const std::optional<JsonFields> vision,
                   root.OptionalObject("vision_config"));
  if (vision.has_value()) {
    RETURN_IF_ERROR(AddUnifiedVision(*vision, config.hidden_size, tensors));
  }
  ASSIGN_OR_RETURN(const std::optional<JsonFields> audio,
                   root.OptionalObject("audio_config"));
  if (audio.has_value()) {
    RETURN_IF_ERROR(AddUnifiedAudio(*audio, config.hidden_size, tensors));
  }
  return tensors;
}

}  // namespace lapidary
