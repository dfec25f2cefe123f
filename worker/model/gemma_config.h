// What a Gemma 4 model looks like: the text part of config.json, resolved.

#ifndef WORKER_MODEL_GEMMA_CONFIG_H_
#define WORKER_MODEL_GEMMA_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

enum class LayerType { kWindow, kGlobal };

// Angles of rotary position embedding: pair i turns by
// position * inverse_frequencies[i]; pairs from size() to d/2 do not turn.
struct Rope {
  std::vector<float> inverse_frequencies;
};

struct LayerConfig {
  LayerType type = LayerType::kWindow;
  int head_dim = 0;      // d
  int num_kv_heads = 0;  // K
  // The layer has no v_proj: values are normed raw keys, and only the rotating
  // pairs of its keys are stored (kernels/attention.h).
  bool k_eq_v = false;
  // Pairs of key channels in the key plane: the rotating ones under k_eq_v,
  // else head_dim / 2.
  int key_half = 0;
};

struct GemmaConfig {
  std::string model_type;  // "gemma4_unified" …
  int vocab_size = 0;
  int hidden_size = 0;        // h
  int intermediate_size = 0;  // F
  int num_heads = 0;          // H, of every layer.
  int window = 0;             // W: keys seen, the query's own included.
  int max_context_tokens = 0;
  float rms_norm_epsilon = 0;
  float embed_scale = 0;    // sqrt(h), rounded to bf16.
  float logit_softcap = 0;  // 0: none.
  Rope window_rope;
  Rope global_rope;
  std::vector<LayerConfig> layers;
  std::vector<int> eos_token_ids;
  // Ids that stand for image, audio and video.  Where no media replaces them,
  // they are embedded as `pad_token_id`, as the reference does.
  std::vector<int> soft_token_ids;
  int pad_token_id = 0;
  bool tied_embeddings = true;  // The head may be missing: it is the embedding.

  int num_layers() const { return static_cast<int>(layers.size()); }
  const Rope& rope(LayerType type) const {
    return type == LayerType::kWindow ? window_rope : global_rope;
  }
};

// Reads config.json in any of its published forms: nested or flat, with legacy
// keys or per_layer_config.
//
// Errors: INVALID_ARGUMENT for missing, contradictory or unsupported values,
// naming the key, what was expected and what was there.
absl::StatusOr<GemmaConfig> ParseGemmaConfig(absl::string_view json);

}  // namespace lapidary

#endif  // WORKER_MODEL_GEMMA_CONFIG_H_
