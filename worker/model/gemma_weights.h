// The weights of a Gemma 4 text model, by role.  The only place that knows the
// names of a checkpoint's tensors.

#ifndef WORKER_MODEL_GEMMA_WEIGHTS_H_
#define WORKER_MODEL_GEMMA_WEIGHTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "worker/loader/weight_image.h"
#include "worker/model/gemma_config.h"

namespace lapidary {

// Whole matrices; a rank takes views of them (kernels/tensor.h).
struct LayerWeights {
  const Bf16* input_norm = nullptr;             // [h]
  const Bf16* post_attention_norm = nullptr;    // [h]
  const Bf16* pre_feedforward_norm = nullptr;   // [h]
  const Bf16* post_feedforward_norm = nullptr;  // [h]
  const Bf16* q_norm = nullptr;                 // [d]
  const Bf16* k_norm = nullptr;                 // [d]
  float layer_scalar = 1.0f;
  PackedMatrix q;     // [H d, h]
  PackedMatrix k;     // [K d, h]
  PackedMatrix v;     // [K d, h]; no data under k_eq_v.
  PackedMatrix o;     // [h, H d]
  PackedMatrix gate;  // [F, h]
  PackedMatrix up;    // [F, h]
  PackedMatrix down;  // [h, F]
};

struct GemmaWeights {
  PackedMatrix embedding;  // [vocab, h]
  PackedMatrix head;       // [vocab, h]; the embedding where they are tied.
  const Bf16* final_norm = nullptr;  // [h]
  std::vector<LayerWeights> layers;
};

// What an image must hold for `config`: every tensor by its name after the
// text prefix, with its shape and form.
std::vector<TensorSpec> GemmaTensors(const GemmaConfig& config);

// Views of `image`, which must outlive them.
//
// Errors: FAILED_PRECONDITION if the image was made for another config.
absl::StatusOr<GemmaWeights> GemmaWeightsFrom(const GemmaConfig& config,
                                              const WeightImage& image);

}  // namespace lapidary

#endif  // WORKER_MODEL_GEMMA_WEIGHTS_H_
