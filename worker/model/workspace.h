// The memory that a forward pass works in, allocated once for the largest step.

#ifndef WORKER_MODEL_WORKSPACE_H_
#define WORKER_MODEL_WORKSPACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"

namespace lapidary {

// Cosines and sines of a step's positions for one type of layer.
struct RopeTable {
  float* cos = nullptr;  // [T, num_angles]
  float* sin = nullptr;  // [T, num_angles]
  int num_angles = 0;
};

// One layer's share of the attention memory, as wide as its heads.
struct AttentionTensors {
  Tensor q;       // [T, H d]
  Tensor k;       // [T, K d], raw.
  Tensor keys;    // [T, K 2 key_half], what is stored.
  Tensor values;  // [T, K d], what is stored; raw before that, if not k_eq_v.
  Tensor out;     // [T, H d]
};

// Heads and widths are those of one rank.  Owned by the model's thread.
class Workspace {
 public:
  struct Shape {
    int max_step_tokens = 0;
    int max_logit_rows = 0;
    int num_heads = 0;          // H
    int intermediate_size = 0;  // F
    int vocab_size = 0;         // Of this rank's head.
    int num_ranks = 1;
  };

  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Workspace>> Create(
      const GemmaConfig& config, const Shape& shape, DType dtype,
      Backend& backend);
  ~Workspace();

  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Sets the rows of all tensors: T tokens, R rows of logits.
  void SetRows(int num_tokens, int num_logit_rows);

  // `kv_heads` are those that this rank computes of the layer.
  AttentionTensors Attention(const LayerConfig& layer, int kv_heads) const;

  const RopeTable& rope(LayerType type) const {
    return type == LayerType::kWindow ? window_rope_ : global_rope_;
  }

  Tensor residual;     // [T, h], the stream x.
  Tensor normed;       // [T, h], what a block reads.
  Tensor branch;       // [T, h], what a block adds.
  Tensor gate_up;      // [T, 2 F]
  Tensor gated;        // [T, F]
  Tensor final_state;  // [R, h], normed.
  Tensor logits;       // [R, vocab / N] fp32
  Tensor gathered;     // [N R, vocab / N] fp32; `logits` itself if N is 1.
  Tensor host_logits;  // [R, vocab] fp32, in the host's memory.

 private:
  Workspace(const Shape& shape, Backend& backend)
      : shape_(shape), backend_(backend) {}

  absl::Status AllocateAll(const GemmaConfig& config, DType dtype);
  absl::Status Allocate(int rows, int cols, DType dtype, Tensor& tensor);
  absl::Status AllocateRope(const Rope& rope, RopeTable& table);

  const Shape shape_;
  Backend& backend_;
  std::vector<void*> allocations_;
  std::unique_ptr<float[]> host_memory_;
  RopeTable window_rope_;
  RopeTable global_rope_;
  // Of the widest layer; Attention() gives narrower views.
  AttentionTensors widest_;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_WORKSPACE_H_
