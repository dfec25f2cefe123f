#include "worker/model/workspace.h"

#include <algorithm>

#include "common/status_macros.h"

namespace lapidary {
namespace {

// The first elements of `memory` as a dense matrix.
Tensor Dense(const Tensor& memory, int cols) {
  return {memory.data, memory.dtype, memory.rows, cols, cols};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workspace>> Workspace::Create(
    const GemmaConfig& config, const Shape& shape, DType dtype,
    Backend& backend) {
  std::unique_ptr<Workspace> workspace(new Workspace(shape, backend));
  RETURN_IF_ERROR(workspace->AllocateAll(config, dtype));
  return workspace;
}

Workspace::~Workspace() {
  for (void* memory : allocations_) backend_.Free(memory);
}

absl::Status Workspace::AllocateAll(const GemmaConfig& config, DType dtype) {
  const int tokens = shape_.max_step_tokens;
  const int h = config.hidden_size;
  const int f = shape_.intermediate_size;
  for (Tensor* tensor : {&residual, &normed, &branch}) {
    RETURN_IF_ERROR(Allocate(tokens, h, dtype, *tensor));
  }
  RETURN_IF_ERROR(Allocate(tokens, 2 * f, dtype, gate_up));
  RETURN_IF_ERROR(Allocate(tokens, f, dtype, gated));

  int q_cols = 0, value_cols = 0, key_cols = 0;
  for (const LayerConfig& layer : config.layers) {
    q_cols = std::max(q_cols, shape_.num_heads * layer.head_dim);
    value_cols = std::max(value_cols, layer.num_kv_heads * layer.head_dim);
    key_cols = std::max(key_cols, layer.num_kv_heads * 2 * layer.key_half);
  }
  RETURN_IF_ERROR(Allocate(tokens, q_cols, dtype, widest_.q));
  RETURN_IF_ERROR(Allocate(tokens, value_cols, dtype, widest_.k));
  RETURN_IF_ERROR(Allocate(tokens, key_cols, dtype, widest_.keys));
  RETURN_IF_ERROR(Allocate(tokens, value_cols, dtype, widest_.values));
  RETURN_IF_ERROR(Allocate(tokens, q_cols, dtype, widest_.out));
  RETURN_IF_ERROR(AllocateRope(config.window_rope, window_rope_));
  RETURN_IF_ERROR(AllocateRope(config.global_rope, global_rope_));

  const int rows = shape_.max_logit_rows;
  RETURN_IF_ERROR(Allocate(rows, h, dtype, final_state));
  RETURN_IF_ERROR(Allocate(rows, shape_.vocab_size, DType::kF32, logits));
  gathered = logits;
  if (shape_.num_ranks > 1) {
    RETURN_IF_ERROR(Allocate(rows * shape_.num_ranks, shape_.vocab_size,
                             DType::kF32, gathered));
  }
  // Not zeroed: most servers touch a few of its rows only.
  host_memory_.reset(new float[int64_t{rows} * config.vocab_size]);
  host_logits = {host_memory_.get(), DType::kF32, rows, config.vocab_size,
                 config.vocab_size};
  return absl::OkStatus();
}

absl::Status Workspace::Allocate(int rows, int cols, DType dtype,
                                 Tensor& tensor) {
  ASSIGN_OR_RETURN(void* memory,
                   backend_.Allocate(int64_t{rows} * cols * SizeOf(dtype)));
  allocations_.push_back(memory);
  tensor = {memory, dtype, rows, cols, cols};
  return absl::OkStatus();
}

absl::Status Workspace::AllocateRope(const Rope& rope, RopeTable& table) {
  table.num_angles = static_cast<int>(rope.inverse_frequencies.size());
  for (float** values : {&table.cos, &table.sin}) {
    Tensor tensor;
    RETURN_IF_ERROR(Allocate(shape_.max_step_tokens, table.num_angles,
                             DType::kF32, tensor));
    *values = static_cast<float*>(tensor.data);
  }
  return absl::OkStatus();
}

void Workspace::SetRows(int num_tokens, int num_logit_rows) {
  for (Tensor* tensor :
       {&residual, &normed, &branch, &gate_up, &gated, &widest_.q, &widest_.k,
        &widest_.keys, &widest_.values, &widest_.out}) {
    tensor->rows = num_tokens;
  }
  for (Tensor* tensor : {&final_state, &logits, &host_logits}) {
    tensor->rows = num_logit_rows;
  }
  gathered.rows = num_logit_rows * shape_.num_ranks;
}

AttentionTensors Workspace::Attention(const LayerConfig& layer,
                                      int kv_heads) const {
  const int q_cols = shape_.num_heads * layer.head_dim;
  const int value_cols = kv_heads * layer.head_dim;
  return {.q = Dense(widest_.q, q_cols),
          .k = Dense(widest_.k, value_cols),
          .keys = Dense(widest_.keys, kv_heads * 2 * layer.key_half),
          .values = Dense(widest_.values, value_cols),
          .out = Dense(widest_.out, q_cols)};
}

}  // namespace lapidary
