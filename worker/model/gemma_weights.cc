#include "worker/model/gemma_weights.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

constexpr char kEmbedding[] = "embed_tokens.weight";
constexpr char kFinalNorm[] = "norm.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr char kLayerScalar[] = "layer_scalar";

struct VectorRole {
  const char* name;
  int size;
  const Bf16* LayerWeights::*member;
};

struct MatrixRole {
  const char* name;
  int rows;
  int cols;
  PackedMatrix LayerWeights::*member;
};

std::string LayerName(int layer, const char* name) {
  return absl::StrCat("layers.", layer, ".", name);
}

std::vector<VectorRole> VectorsOf(const GemmaConfig& config,
                                  const LayerConfig& layer) {
  const int h = config.hidden_size;
  const int d = layer.head_dim;
  using W = LayerWeights;
  return {
      {"input_layernorm.weight", h, &W::input_norm},
      {"post_attention_layernorm.weight", h, &W::post_attention_norm},
      {"pre_feedforward_layernorm.weight", h, &W::pre_feedforward_norm},
      {"post_feedforward_layernorm.weight", h, &W::post_feedforward_norm},
      {"self_attn.q_norm.weight", d, &W::q_norm},
      {"self_attn.k_norm.weight", d, &W::k_norm},
  };
}

std::vector<MatrixRole> MatricesOf(const GemmaConfig& config,
                                   const LayerConfig& layer) {
  const int h = config.hidden_size;
  const int f = config.intermediate_size;
  const int q = config.num_heads * layer.head_dim;
  const int kv = layer.num_kv_heads * layer.head_dim;
  using W = LayerWeights;
  std::vector<MatrixRole> matrices = {
      {"self_attn.q_proj.weight", q, h, &W::q},
      {"self_attn.k_proj.weight", kv, h, &W::k},
      {"self_attn.o_proj.weight", h, q, &W::o},
      {"mlp.gate_proj.weight", f, h, &W::gate},
      {"mlp.up_proj.weight", f, h, &W::up},
      {"mlp.down_proj.weight", h, f, &W::down},
  };
  if (!layer.k_eq_v) {
    matrices.push_back({"self_attn.v_proj.weight", kv, h, &W::v});
  }
  return matrices;
}

TensorSpec Vector(std::string name, int size) {
  return {std::move(name), 1, size, TensorForm::kPlain};
}

TensorSpec Matrix(std::string name, int rows, int cols) {
  return {std::move(name), rows, cols, TensorForm::kPacked};
}

absl::StatusOr<LayerWeights> LayerFrom(const GemmaConfig& config, int index,
                                       const WeightImage& image) {
  const LayerConfig& layer = config.layers[index];
  LayerWeights weights;
  for (const VectorRole& role : VectorsOf(config, layer)) {
    ASSIGN_OR_RETURN(weights.*role.member,
                     image.Vector(LayerName(index, role.name), role.size));
  }
  for (const MatrixRole& role : MatricesOf(config, layer)) {
    ASSIGN_OR_RETURN(
        weights.*role.member,
        image.Packed(LayerName(index, role.name), role.rows, role.cols));
  }
  ASSIGN_OR_RETURN(const Bf16* scalar,
                   image.Vector(LayerName(index, kLayerScalar), 1));
  weights.layer_scalar = ToFloat(*scalar);
  return weights;
}

absl::StatusOr<GemmaWeights> ReadWeights(const GemmaConfig& config,
                                         const WeightImage& image) {
  GemmaWeights weights;
  ASSIGN_OR_RETURN(
      weights.embedding,
      image.Packed(kEmbedding, config.vocab_size, config.hidden_size));
  ASSIGN_OR_RETURN(weights.final_norm,
                   image.Vector(kFinalNorm, config.hidden_size));
  weights.head = weights.embedding;
  if (!config.tied_embeddings || image.Has(kHead)) {
    ASSIGN_OR_RETURN(weights.head, image.Packed(kHead, config.vocab_size,
                                                config.hidden_size));
  }
  for (int i = 0; i < config.num_layers(); ++i) {
    ASSIGN_OR_RETURN(weights.layers.emplace_back(),
                     LayerFrom(config, i, image));
  }
  return weights;
}

}  // namespace

std::vector<TensorSpec> GemmaTensors(const GemmaConfig& config) {
  std::vector<TensorSpec> specs = {
      Matrix(kEmbedding, config.vocab_size, config.hidden_size)};
  for (int i = 0; i < config.num_layers(); ++i) {
    for (const VectorRole& role : VectorsOf(config, config.layers[i])) {
      specs.push_back(Vector(LayerName(i, role.name), role.size));
    }
    for (const MatrixRole& role : MatricesOf(config, config.layers[i])) {
      specs.push_back(Matrix(LayerName(i, role.name), role.rows, role.cols));
    }
    specs.push_back(Vector(LayerName(i, kLayerScalar), 1));
  }
  specs.push_back(Vector(kFinalNorm, config.hidden_size));
  specs.push_back(Matrix(kHead, config.vocab_size, config.hidden_size));
  specs.back().optional = config.tied_embeddings;
  return specs;
}

absl::StatusOr<GemmaWeights> GemmaWeightsFrom(const GemmaConfig& config,
                                              const WeightImage& image) {
  absl::StatusOr<GemmaWeights> weights = ReadWeights(config, image);
  if (absl::IsNotFound(weights.status())) {
    return absl::FailedPreconditionError(weights.status().message());
  }
  return weights;
}

}  // namespace lapidary
