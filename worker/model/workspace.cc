#include "worker/model/workspace.h"

#include <algorithm>

#include "common/status_macros.h"
#include "worker/parallel/context_split.h"

namespace lapidary {
namespace {

Tensor Dense(void* memory, DType dtype, int rows, int cols) {
  return {memory, dtype, rows, cols, cols};
}

// KV heads that a rank computes of a layer under head split.
int KvHeadsOfRank(const LayerConfig& layer, int num_ranks) {
  return layer.type == LayerType::kWindow
             ? ShareOfKvHeads(layer.num_kv_heads, 0, num_ranks).count
             : layer.num_kv_heads;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workspace>> Workspace::Create(
    const GemmaConfig& config, const Shape& shape, DType dtype,
    Backend& backend) {
  std::unique_ptr<Workspace> workspace(
      new Workspace(config, shape, dtype, backend));
  RETURN_IF_ERROR(workspace->AllocateAll());
  return workspace;
}

Workspace::~Workspace() {
  for (void* memory : allocations_) backend_.Free(memory);
}

Workspace::Sizes Workspace::SizesFor(const GemmaConfig& config,
                                     const Shape& shape) {
  const int64_t step = shape.max_step_tokens;
  const int64_t range = shape.max_range_tokens;
  const int64_t round = shape.max_round_tokens();
  const int n = shape.num_ranks;
  const int64_t h = config.hidden_size;
  const int64_t f =
      ShapeOfRank(config, n - 1, n).mlp_columns.count;  // The largest share.
  const int64_t heads = config.num_heads;
  const int64_t rows = shape.max_logit_rows;

  Sizes sizes;
  sizes.hidden = std::max(step, range) * h;
  sizes.gate_up = 2 * std::max(step * f, range * config.intermediate_size);
  for (const LayerConfig& layer : config.layers) {
    const bool global = layer.type == LayerType::kGlobal;
    const int64_t d = layer.head_dim;
    const int64_t k = layer.num_kv_heads;
    const int64_t own_k = KvHeadsOfRank(layer, n);
    const int64_t q_heads = global ? heads : heads / n;
    // Key rows under token split.
    const int64_t raw_rows = global ? round : range;
    const int64_t key_rows = global       ? round
                             : range == 0 ? 0
                                          : range + config.window - 1;
    sizes.q = std::max({sizes.q, step * q_heads * d, range * heads * d});
    sizes.out = std::max({sizes.out, step * heads / n * d, range * heads * d});
    sizes.k = std::max({sizes.k, step * own_k * d, raw_rows * k * d});
    sizes.keys = std::max({sizes.keys, step * own_k * 2 * layer.key_half,
                           key_rows * k * 2 * layer.key_half});
    sizes.values = std::max({sizes.values, step * own_k * d, key_rows * k * d});
  }
  const auto angles = [](const Rope& rope) {
    return static_cast<int64_t>(rope.inverse_frequencies.size());
  };
  sizes.window_angles = std::max(step, range) * angles(config.window_rope);
  sizes.global_angles = std::max(step, round) * angles(config.global_rope);
  sizes.final_state = rows * h;
  sizes.logits = rows * config.vocab_size;
  return sizes;
}

int64_t Workspace::MemoryBytes(const GemmaConfig& config, const Shape& shape,
                               DType dtype) {
  const Sizes s = SizesFor(config, shape);
  return (3 * s.hidden + s.gate_up + s.gate_up / 2 + s.q + s.out + s.k +
          s.keys + s.values + s.final_state) *
             SizeOf(dtype) +
         (2 * s.window_angles + 2 * s.global_angles + s.logits) *
             SizeOf(DType::kF32);
}

absl::Status Workspace::AllocateAll() {
  const Sizes sizes = SizesFor(config_, shape_);
  for (void** memory : {&residual_, &normed_, &branch_}) {
    RETURN_IF_ERROR(Allocate(sizes.hidden, dtype_, *memory));
  }
  RETURN_IF_ERROR(Allocate(sizes.gate_up, dtype_, gate_up_));
  RETURN_IF_ERROR(Allocate(sizes.gate_up / 2, dtype_, gated_));
  RETURN_IF_ERROR(Allocate(sizes.q, dtype_, q_));
  RETURN_IF_ERROR(Allocate(sizes.out, dtype_, out_));
  RETURN_IF_ERROR(Allocate(sizes.k, dtype_, k_));
  RETURN_IF_ERROR(Allocate(sizes.keys, dtype_, keys_));
  RETURN_IF_ERROR(Allocate(sizes.values, dtype_, values_));
  RETURN_IF_ERROR(
      AllocateRope(config_.window_rope, sizes.window_angles, window_rope_));
  RETURN_IF_ERROR(
      AllocateRope(config_.global_rope, sizes.global_angles, global_rope_));
  RETURN_IF_ERROR(Allocate(sizes.final_state, dtype_, final_state_));
  RETURN_IF_ERROR(Allocate(sizes.logits, DType::kF32, logits_));
  // Not zeroed: most servers touch a few of its rows only.
  if (shape_.rank == 0) host_memory_.reset(new float[sizes.logits]);
  return absl::OkStatus();
}

absl::Status Workspace::Allocate(int64_t values, DType dtype, void*& memory) {
  ASSIGN_OR_RETURN(memory, backend_.Allocate(values * SizeOf(dtype)));
  allocations_.push_back(memory);
  return absl::OkStatus();
}

absl::Status Workspace::AllocateRope(const Rope& rope, int64_t values,
                                     RopeTable& table) {
  table.num_angles = static_cast<int>(rope.inverse_frequencies.size());
  for (float** angles : {&table.cos, &table.sin}) {
    void* memory = nullptr;
    RETURN_IF_ERROR(Allocate(values, DType::kF32, memory));
    *angles = static_cast<float*>(memory);
  }
  return absl::OkStatus();
}

void Workspace::SetRows(const StepRows& rows) {
  rows_ = rows;
  const int h = config_.hidden_size;
  const int f = rows.layout == Layout::kHeadSplit
                    ? rank_shape_.mlp_columns.count
                    : config_.intermediate_size;
  residual = Dense(residual_, dtype_, rows.tokens, h);
  normed = Dense(normed_, dtype_, rows.tokens, h);
  branch = Dense(branch_, dtype_, rows.tokens, h);
  gate_up = Dense(gate_up_, dtype_, rows.tokens, 2 * f);
  gated = Dense(gated_, dtype_, rows.tokens, f);
  final_state = Dense(final_state_, dtype_, rows.logits, h);
  logits = Dense(logits_, DType::kF32, rows.logits, config_.vocab_size);
  host_logits =
      Dense(host_memory_.get(), DType::kF32,
            host_memory_ == nullptr ? 0 : rows.logits, config_.vocab_size);
}

AttentionTensors Workspace::Attention(const LayerConfig& layer) const {
  const bool global = layer.type == LayerType::kGlobal;
  const bool head_split = rows_.layout == Layout::kHeadSplit;
  const int d = layer.head_dim;
  const int heads = config_.num_heads;
  const int own_cols = heads / shape_.num_ranks * d;
  const int kv_heads =
      head_split ? KvHeadsOfRank(layer, shape_.num_ranks) : layer.num_kv_heads;
  const int raw_rows = !head_split && global ? rows_.round : rows_.tokens;
  const int key_rows = head_split ? rows_.tokens
                       : global   ? rows_.round
                                  : rows_.halo + rows_.tokens;

  AttentionTensors t;
  t.q = Dense(q_, dtype_, rows_.tokens, head_split ? own_cols : heads * d);
  if (head_split && global) {
    t.all_q = Dense(q_, dtype_, rows_.tokens, heads * d);
    t.q = t.all_q.Cols(shape_.rank * own_cols, own_cols);
  }
  t.k = Dense(k_, dtype_, raw_rows, kv_heads * d);
  t.keys = Dense(keys_, dtype_, key_rows, kv_heads * 2 * layer.key_half);
  t.values = Dense(values_, dtype_, key_rows, kv_heads * d);
  t.out = Dense(out_, dtype_, rows_.tokens, head_split ? own_cols : heads * d);
  return t;
}

}  // namespace lapidary
