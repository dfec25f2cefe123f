#include "worker/model/gemma_config.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/status_macros.h"
#include "kernels/bf16.h"

namespace lapidary {
namespace {

// Bounds that keep every product of two sizes in 64 bits and every row of the
// model in 32.
constexpr int kMaxSize = 1 << 24;
constexpr int kMaxLayers = 1024;
constexpr JsonFields::Range kSizes = {.min = 1, .max = kMaxSize};

constexpr char kWindowName[] = "sliding_attention";
constexpr char kGlobalName[] = "full_attention";

const char* NameOf(LayerType type) {
  return type == LayerType::kWindow ? kWindowName : kGlobalName;
}

absl::Status Unsupported(const JsonFields& fields, const char* key,
                         absl::string_view needed) {
  return absl::UnimplementedError(fields.Error(key, needed).message());
}

// The object that holds the text model's keys: the root or its text_config.
absl::StatusOr<JsonFields> TextFields(const JsonFields& root,
                                      const std::string& model_type) {
  if (model_type == "gemma4_unified_text") return root;
  if (model_type != "gemma4_unified") {
    return Unsupported(root, "model_type",
                       "\"gemma4_unified\" or \"gemma4_unified_text\"");
  }
  ASSIGN_OR_RETURN(const std::optional<JsonFields> text,
                   root.OptionalObject("text_config"));
  if (!text.has_value()) return root.Error("text_config", "an object");
  ASSIGN_OR_RETURN(const std::optional<std::string> text_type,
                   text->OptionalString("model_type"));
  if (text_type.value_or("gemma4_unified_text") != "gemma4_unified_text") {
    return text->Error("model_type", "\"gemma4_unified_text\"");
  }
  return *text;
}

// Features of other models of the family, which this one must have turned off.
absl::Status RefuseUnsupported(const JsonFields& text) {
  for (const char* key :
       {"num_kv_shared_layers", "hidden_size_per_layer_input"}) {
    ASSIGN_OR_RETURN(const std::optional<int> size,
                     text.OptionalInt(key, {.min = 0, .max = kMaxSize}));
    if (size.value_or(0) != 0) return Unsupported(text, key, "0");
  }
  for (const char* key : {"enable_moe_block", "attention_bias"}) {
    ASSIGN_OR_RETURN(const std::optional<bool> on, text.OptionalBool(key));
    if (on.value_or(false)) return Unsupported(text, key, "false");
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> activation,
                   text.OptionalString("hidden_activation"));
  if (activation.value_or("gelu_pytorch_tanh") != "gelu_pytorch_tanh") {
    return Unsupported(text, "hidden_activation", "\"gelu_pytorch_tanh\"");
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> bidirectional,
                   text.OptionalString("use_bidirectional_attention"));
  if (bidirectional.value_or("vision") != "vision") {
    return Unsupported(text, "use_bidirectional_attention",
                       "\"vision\" or null");
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const JsonFields& text, GemmaConfig& config) {
  ASSIGN_OR_RETURN(config.vocab_size, text.Int("vocab_size", 262144, kSizes));
  ASSIGN_OR_RETURN(config.hidden_size, text.Int("hidden_size", 2304, kSizes));
  ASSIGN_OR_RETURN(config.intermediate_size,
                   text.Int("intermediate_size", 9216, kSizes));
  ASSIGN_OR_RETURN(config.num_heads,
                   text.Int("num_attention_heads", 8, kSizes));
  ASSIGN_OR_RETURN(config.window, text.Int("sliding_window", 1024, {.min = 1}));
  ASSIGN_OR_RETURN(config.max_context_tokens,
                   text.Int("max_position_embeddings", 262144, {.min = 1}));
  for (const auto& [key, size] :
       {std::pair("vocab_size", config.vocab_size),
        std::pair("hidden_size", config.hidden_size),
        std::pair("intermediate_size", config.intermediate_size)}) {
    if (size % 16 != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          text.path(), key, ": needs a multiple of 16, got ", size));
    }
  }
  config.embed_scale =
      RoundToBf16(std::sqrt(static_cast<float>(config.hidden_size)));
  return absl::OkStatus();
}

absl::Status ReadNumbers(const JsonFields& text, GemmaConfig& config) {
  ASSIGN_OR_RETURN(const std::optional<double> epsilon,
                   text.OptionalNumber("rms_norm_eps"));
  config.rms_norm_epsilon = static_cast<float>(epsilon.value_or(1e-6));
  if (!(config.rms_norm_epsilon > 0 && config.rms_norm_epsilon < 1)) {
    return text.Error("rms_norm_eps", "a number between 0 and 1");
  }
  ASSIGN_OR_RETURN(const std::optional<double> softcap,
                   text.OptionalNumber("final_logit_softcapping"));
  config.logit_softcap = static_cast<float>(softcap.value_or(0));
  if (softcap.has_value() &&
      !(config.logit_softcap > 0 && std::isfinite(config.logit_softcap))) {
    return text.Error("final_logit_softcapping", "a number above 0 or null");
  }
  return absl::OkStatus();
}

absl::Status ReadLayerTypes(const JsonFields& text, GemmaConfig& config) {
  ASSIGN_OR_RETURN(const int num_layers,
                   text.Int("num_hidden_layers", 30, {1, kMaxLayers}));
  config.layers.resize(num_layers);
  const nlohmann::json* types = text.Find("layer_types");
  if (types != nullptr &&
      (!types->is_array() || types->size() != config.layers.size())) {
    const std::string found = types->is_array()
                                  ? absl::StrCat(types->size(), " entries")
                                  : ShowJson(*types);
    return absl::InvalidArgumentError(
        absl::StrCat(text.path(), "layer_types: needs a list of ", num_layers,
                     " entries (num_hidden_layers), got ", found));
  }
  for (int i = 0; i < num_layers; ++i) {
    bool global = (i + 1) % 6 == 0;
    if (types != nullptr) {
      const nlohmann::json& type = (*types)[i];
      global = type == kGlobalName;
      if (!global && type != kWindowName) {
        return absl::InvalidArgumentError(absl::StrCat(
            text.path(), "layer_types[", i, "]: needs \"", kWindowName,
            "\" or \"", kGlobalName, "\", got ", ShowJson(type)));
      }
    }
    config.layers[i].type = global ? LayerType::kGlobal : LayerType::kWindow;
  }
  config.layers.back().type = LayerType::kGlobal;
  return absl::OkStatus();
}

// The new form: {"05": {"head_dim": 64, "num_key_value_heads": 1}, …}.
absl::Status ApplyPerLayerConfig(const JsonFields& overrides,
                                 std::vector<LayerConfig>& layers) {
  std::set<int> seen;
  for (const auto& [key, value] : overrides.object().items()) {
    int layer = -1;
    if (!absl::SimpleAtoi(key, &layer) || layer < 0 ||
        layer >= static_cast<int>(layers.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat(overrides.path(), key, ": needs a layer from 0 to ",
                       layers.size() - 1));
    }
    if (!seen.insert(layer).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          overrides.path(), key, ": needs one entry a layer, layer ", layer,
          " has another"));
    }
    if (!value.is_object()) return overrides.Error(key.c_str(), "an object");
    const JsonFields fields(value, absl::StrCat(overrides.path(), key, "."));
    for (const auto& [name, unused] : value.items()) {
      if (name != "head_dim" && name != "num_key_value_heads") {
        return absl::UnimplementedError(absl::StrCat(
            fields.path(), name,
            ": needs head_dim or num_key_value_heads as the overridden key"));
      }
    }
    LayerConfig& config = layers[layer];
    ASSIGN_OR_RETURN(config.head_dim,
                     fields.Int("head_dim", config.head_dim, kSizes));
    ASSIGN_OR_RETURN(
        config.num_kv_heads,
        fields.Int("num_key_value_heads", config.num_kv_heads, kSizes));
  }
  return absl::OkStatus();
}

// The legacy form: two keys for all global layers.
absl::Status ApplyGlobalKeys(const JsonFields& text, bool k_eq_v,
                             std::vector<LayerConfig>& layers) {
  // A missing key means 512, a null or 0 means head_dim.
  const bool missing = !text.object().contains("global_head_dim");
  ASSIGN_OR_RETURN(
      const std::optional<int> head_dim,
      text.OptionalInt("global_head_dim", {.min = 0, .max = kMaxSize}));
  ASSIGN_OR_RETURN(const std::optional<int> num_kv_heads,
                   text.OptionalInt("num_global_key_value_heads", kSizes));
  for (LayerConfig& layer : layers) {
    if (layer.type != LayerType::kGlobal) continue;
    const int global_head_dim = missing ? 512 : head_dim.value_or(0);
    if (global_head_dim > 0) layer.head_dim = global_head_dim;
    if (k_eq_v && num_kv_heads.has_value()) layer.num_kv_heads = *num_kv_heads;
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const JsonFields& text, const GemmaConfig& config) {
  // One set of angles serves all layers of a type.
  int head_dims[2] = {0, 0};
  for (int i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    if (layer.head_dim % 16 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(text.path(), "head_dim of layer ", i,
                       ": needs a multiple of 16, got ", layer.head_dim));
    }
    if (config.num_heads % layer.num_kv_heads != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(text.path(), "num_key_value_heads of layer ", i,
                       ": needs a divisor of num_attention_heads (",
                       config.num_heads, "), got ", layer.num_kv_heads));
    }
    if (int64_t{config.num_heads} * layer.head_dim > kMaxSize) {
      return absl::InvalidArgumentError(absl::StrCat(
          text.path(), "num_attention_heads times head_dim of layer ", i,
          ": needs at most ", kMaxSize, ", got ",
          int64_t{config.num_heads} * layer.head_dim));
    }
    int& head_dim = head_dims[layer.type == LayerType::kGlobal];
    if (head_dim == 0) head_dim = layer.head_dim;
    if (head_dim != layer.head_dim) {
      return absl::UnimplementedError(
          absl::StrCat(text.path(), "head_dim of layer ", i, ": needs ",
                       head_dim, " as in the other layers of type ",
                       NameOf(layer.type), ", got ", layer.head_dim));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadLayers(const JsonFields& text, GemmaConfig& config) {
  RETURN_IF_ERROR(ReadLayerTypes(text, config));
  ASSIGN_OR_RETURN(const int head_dim, text.Int("head_dim", 256, kSizes));
  ASSIGN_OR_RETURN(const int num_kv_heads,
                   text.Int("num_key_value_heads", 4, kSizes));
  ASSIGN_OR_RETURN(const bool k_eq_v, text.Bool("attention_k_eq_v", false));
  for (LayerConfig& layer : config.layers) {
    layer.head_dim = head_dim;
    layer.num_kv_heads = num_kv_heads;
    layer.k_eq_v = k_eq_v && layer.type == LayerType::kGlobal;
  }
  ASSIGN_OR_RETURN(const std::optional<JsonFields> per_layer,
                   text.OptionalObject("per_layer_config"));
  if (per_layer.has_value()) {
    RETURN_IF_ERROR(ApplyPerLayerConfig(*per_layer, config.layers));
  } else {
    RETURN_IF_ERROR(ApplyGlobalKeys(text, k_eq_v, config.layers));
  }
  return CheckLayers(text, config);
}

// f_i = 1 / (theta^(2 i / head_dim)) / factor, in float32 at each step, as the
// reference computes it.
Rope MakeRope(int num_angles, int head_dim, double theta, double factor) {
  Rope rope;
  for (int i = 0; i < num_angles; ++i) {
    const float exponent =
        static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(theta)),
                 static_cast<double>(exponent)));
    rope.inverse_frequencies.push_back(1.0f / power /
                                       static_cast<float>(factor));
  }
  return rope;
}

absl::StatusOr<double> PositiveNumber(const JsonFields& fields, const char* key,
                                      double fallback) {
  ASSIGN_OR_RETURN(const std::optional<double> number,
                   fields.OptionalNumber(key));
  const double value = number.value_or(fallback);
  if (!(value > 0 && value < 1e30)) {
    return fields.Error(key, "a number above 0");
  }
  return value;
}

absl::StatusOr<Rope> ReadRope(const JsonFields& text, LayerType type,
                              int head_dim) {
  const bool window = type == LayerType::kWindow;
  static const nlohmann::json kEmpty = nlohmann::json::object();
  JsonFields fields(kEmpty, "");
  ASSIGN_OR_RETURN(const std::optional<JsonFields> by_type,
                   text.OptionalObject("rope_parameters"));
  if (by_type.has_value()) {
    if (by_type->Find("rope_theta") != nullptr) {
      return by_type->Error("rope_theta", "objects by layer type beside it");
    }
    ASSIGN_OR_RETURN(const std::optional<JsonFields> own,
                     by_type->OptionalObject(NameOf(type)));
    if (own.has_value()) fields = *own;
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> rope_type,
                   fields.OptionalString("rope_type"));
  const std::string kind =
      rope_type.value_or(window ? "default" : "proportional");
  ASSIGN_OR_RETURN(const double theta,
                   PositiveNumber(fields, "rope_theta", window ? 1e4 : 1e6));
  const bool proportional = kind == "proportional";
  if (!proportional && kind != "default") {
    return Unsupported(fields, "rope_type", "\"default\" or \"proportional\"");
  }
  ASSIGN_OR_RETURN(const double part,
                   PositiveNumber(fields, "partial_rotary_factor",
                                  proportional ? 0.25 : 1.0));
  ASSIGN_OR_RETURN(const double factor, PositiveNumber(fields, "factor", 1.0));
  if (!proportional) {
    if (part != 1.0) {
      return Unsupported(fields, "partial_rotary_factor",
                         "1 with rope_type \"default\"");
    }
    return MakeRope(head_dim / 2, head_dim, theta, 1.0);
  }
  const int num_angles = static_cast<int>(std::floor(part * head_dim / 2));
  if (part > 1.0 || num_angles < 1) {
    return fields.Error(
        "partial_rotary_factor",
        absl::StrCat("a number from ", 2.0 / head_dim, " to 1"));
  }
  return MakeRope(num_angles, head_dim, theta, factor);
}

absl::Status ReadRopes(const JsonFields& text, GemmaConfig& config) {
  for (LayerConfig& layer : config.layers) {
    Rope& rope = layer.type == LayerType::kWindow ? config.window_rope
                                                  : config.global_rope;
    if (rope.inverse_frequencies.empty()) {
      ASSIGN_OR_RETURN(rope, ReadRope(text, layer.type, layer.head_dim));
    }
    layer.key_half = layer.k_eq_v
                         ? static_cast<int>(rope.inverse_frequencies.size())
                         : layer.head_dim / 2;
  }
  return absl::OkStatus();
}

absl::Status ReadTokens(const JsonFields& root, const JsonFields& text,
                        GemmaConfig& config) {
  const JsonFields::Range ids = {.min = 0, .max = config.vocab_size - 1};
  const JsonFields& owner = root.Find("eos_token_id") != nullptr ? root : text;
  ASSIGN_OR_RETURN(config.eos_token_ids, owner.Ints("eos_token_id", ids));
  if (config.eos_token_ids.empty()) config.eos_token_ids = {1};
  const JsonFields& tie =
      root.Find("tie_word_embeddings") != nullptr ? root : text;
  ASSIGN_OR_RETURN(config.tied_embeddings,
                   tie.Bool("tie_word_embeddings", true));
  ASSIGN_OR_RETURN(config.pad_token_id, text.Int("pad_token_id", 0, ids));
  if (config.model_type != "gemma4_unified") return absl::OkStatus();
  // An id beyond a small vocabulary is one that never occurs.
  for (const auto& [key, published] : {std::pair("image_token_id", 258880),
                                       std::pair("audio_token_id", 258881),
                                       std::pair("video_token_id", 258884)}) {
    ASSIGN_OR_RETURN(const int id, root.Int(key, published, {.min = 0}));
    config.soft_token_ids.push_back(id);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GemmaConfig> ParseGemmaConfig(absl::string_view json_text) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(json_text));
  const JsonFields root(json, "");
  ASSIGN_OR_RETURN(const std::optional<std::string> model_type,
                   root.OptionalString("model_type"));
  if (!model_type.has_value()) {
    return root.Error("model_type",
                      "\"gemma4_unified\" or \"gemma4_unified_text\"");
  }
  GemmaConfig config;
  config.model_type = *model_type;
  ASSIGN_OR_RETURN(const JsonFields text, TextFields(root, *model_type));
  RETURN_IF_ERROR(RefuseUnsupported(text));
  RETURN_IF_ERROR(ReadSizes(text, config));
  RETURN_IF_ERROR(ReadNumbers(text, config));
  RETURN_IF_ERROR(ReadLayers(text, config));
  RETURN_IF_ERROR(ReadRopes(text, config));
  RETURN_IF_ERROR(ReadTokens(root, text, config));
  return config;
}

}  // namespace lapidary
