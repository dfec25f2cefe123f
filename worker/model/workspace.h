// The memory that a forward pass works in, allocated once for the largest step
// of either layout.

#ifndef WORKER_MODEL_WORKSPACE_H_
#define WORKER_MODEL_WORKSPACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/model/rank_weights.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Cosines and sines of positions for one type of layer.
struct RopeTable {
  float* cos = nullptr;  // [T, num_angles]
  float* sin = nullptr;  // [T, num_angles]
  int num_angles = 0;

  const float* cos_row(int r) const { return cos + int64_t{r} * num_angles; }
  const float* sin_row(int r) const { return sin + int64_t{r} * num_angles; }
};

// What a rank computes in a step.
struct StepRows {
  Layout layout = Layout::kHeadSplit;
  // Tokens: all of the step under head split, this rank's range under token
  // split.
  int tokens = 0;
  int round = 0;   // Token split: tokens of the round.
  int halo = 0;    // Token split: positions before the range.
  int logits = 0;  // Rows of logits of the step.
};

// One layer's tensors, with the heads and rows that the layout gives them:
//
//                      q, out       k                 keys, values
//   head split  window [T, H/N d]   [T, K/N d]        [T, K/N ...]
//               global [T, H/N d]   [T, K d]          [T, K ...]
//   token split window [n, H d]     [n, K d]          [halo + n, K ...]
//               global [n, H d]     [round, K d]      [round, K ...]
struct AttentionTensors {
  Tensor q;       // Under head split a view of all_q in global layers.
  Tensor all_q;   // Head split, global: [T, H d], all ranks' queries.
  Tensor k;       // Raw.
  Tensor keys;    // [ , K 2 key_half], what is stored.
  Tensor values;  // [ , K d], what is stored; raw before that, if not k_eq_v.
  Tensor out;
};

// Owned by the model's thread.
class Workspace {
 public:
  struct Shape {
    int max_step_tokens = 0;   // Under head split.
    int max_range_tokens = 0;  // Of this rank under token split; 0: none.
    int max_logit_rows = 0;
    int rank = 0;
    int num_ranks = 1;

    // Of a round under token split.
    int max_round_tokens() const { return max_range_tokens * num_ranks; }
  };

  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Workspace>> Create(
      const GemmaConfig& config, const Shape& shape, DType dtype,
      Backend& backend);
  ~Workspace();

  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Bytes that Create() allocates on the device.
  static int64_t MemoryBytes(const GemmaConfig& config, const Shape& shape,
                             DType dtype);

  // Gives all tensors the rows and columns of a step.
  void SetRows(const StepRows& rows);
  const StepRows& rows() const { return rows_; }
  DType dtype() const { return dtype_; }

  AttentionTensors Attention(const LayerConfig& layer) const;

  const RopeTable& rope(LayerType type) const {
    return type == LayerType::kWindow ? window_rope_ : global_rope_;
  }

  Tensor residual;     // [T, h], the stream x.
  Tensor normed;       // [T, h], what a block reads.
  Tensor branch;       // [T, h], what a block adds.
  Tensor gate_up;      // [T, 2 F'], F' the layout's MLP columns.
  Tensor gated;        // [T, F']
  Tensor final_state;  // [R, h], normed.
  Tensor logits;       // [R, vocab] fp32; this rank computes its columns.
  Tensor host_logits;  // [R, vocab] fp32, in the host's memory.

 private:
  // Elements that each buffer needs.
  struct Sizes {
    int64_t hidden = 0;  // residual, normed, branch
    int64_t gate_up = 0;
    int64_t q = 0;
    int64_t out = 0;
    int64_t k = 0;
    int64_t keys = 0;
    int64_t values = 0;
    int64_t window_angles = 0;
    int64_t global_angles = 0;
    int64_t final_state = 0;
    int64_t logits = 0;
  };

  Workspace(const GemmaConfig& config, const Shape& shape, DType dtype,
            Backend& backend)
      : config_(config),
        shape_(shape),
        rank_shape_(ShapeOfRank(config, shape.rank, shape.num_ranks)),
        dtype_(dtype),
        backend_(backend) {}

  static Sizes SizesFor(const GemmaConfig& config, const Shape& shape);
  absl::Status AllocateAll();
  absl::Status Allocate(int64_t values, DType dtype, void*& memory);
  absl::Status AllocateRope(const Rope& rope, int64_t values, RopeTable& table);

  const GemmaConfig& config_;
  const Shape shape_;
  const RankShape rank_shape_;
  const DType dtype_;
  Backend& backend_;
  std::vector<void*> allocations_;
  std::unique_ptr<float[]> host_memory_;
  RopeTable window_rope_;
  RopeTable global_rope_;
  StepRows rows_;

  void* residual_ = nullptr;
  void* normed_ = nullptr;
  void* branch_ = nullptr;
  void* gate_up_ = nullptr;
  void* gated_ = nullptr;
  void* q_ = nullptr;
  void* out_ = nullptr;
  void* k_ = nullptr;
  void* keys_ = nullptr;
  void* values_ = nullptr;
  void* final_state_ = nullptr;
  void* logits_ = nullptr;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_WORKSPACE_H_
