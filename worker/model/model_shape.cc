#include "worker/model/model_shape.h"

#include <algorithm>

#include "common/tokens.h"

namespace lapidary {

ModelShape ShapeOfModel(const GemmaConfig& config) {
  ModelShape shape = {.hidden_size = config.hidden_size,
                      .intermediate_size = config.intermediate_size,
                      .num_heads = config.num_heads,
                      .vocab_size = config.vocab_size,
                      .window = config.window,
                      .window_layers = {},
                      .global_layers = {}};
  for (const LayerConfig& layer : config.layers) {
    ModelShape::Layers& layers = layer.type == LayerType::kWindow
                                     ? shape.window_layers
                                     : shape.global_layers;
    if (++layers.count > 1) continue;
    layers.kv_heads = layer.num_kv_heads;
    layers.head_dim = layer.head_dim;
    layers.key_half = layer.key_half;
    layers.has_v = !layer.k_eq_v;
  }
  return shape;
}

int GatherPages(const GemmaConfig& config, int64_t memory, DType compute) {
  const ModelShape::Layers layers = ShapeOfModel(config).global_layers;
  if (layers.count == 0) return 1;
  const int64_t page_bytes = kPageTokens * layers.stored() * SizeOf(compute);
  return static_cast<int>(std::clamp<int64_t>(
      memory / page_bytes, 1, NumPages(config.max_context_tokens)));
}

}  // namespace lapidary
