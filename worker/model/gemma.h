// The forward pass of a Gemma 4 text model over a paged batch.

#ifndef WORKER_MODEL_GEMMA_H_
#define WORKER_MODEL_GEMMA_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"
#include "worker/model/kv_store.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/step_progress.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// One rank's share of the model.  Owned by one thread, the same as its backend.
//
//   embed ─► layers ─► final norm ─► head          head split, of N ranks
//              │                       │
//              │ attention, MLP:       │ this rank's vocabulary; the leader
//              │ this rank's heads     │ gathers the logits
//              │ and columns, summed
//
// Under token split the rank runs embedding and layers whole, for its range of
// positions.
class Gemma {
 public:
  struct Options {
    DType compute = DType::kBf16;  // Activations, pages, what ranks exchange.
    // The largest batch that Forward() takes under head split.
    int max_step_tokens = 512;
    int max_logit_rows = 64;
    // The longest range of this rank in a round, a multiple of kPageTokens; 0:
    // no rounds.
    int max_range_tokens = 0;
    // Pages of the buffer through which global keys travel between ranks.
    int gather_pages = 256;
    // Told the layer that runs; may be null.
    StepProgress* progress = nullptr;
  };

  // Sees the residual stream of this rank's rows [T, h] in the backend's
  // memory: the scaled
  // embedding as layer 0, the stream after each layer l as l + 1, and what the
  // final norm makes of it as num_layers + 1.
  using Observer = std::function<void(int layer, Tensor hidden)>;

  // Allocates all the memory that Forward() will need.  References must
  // outlive the model.
  //
  // Errors: RESOURCE_EXHAUSTED; INVALID_ARGUMENT if the ranks do not divide
  // the heads, with the numbers of ranks that do.
  static absl::StatusOr<std::unique_ptr<Gemma>> Create(
      const GemmaConfig& config, const GemmaWeights& weights, KvStore& store,
      Backend& backend, Collective& collective, const Options& options);
  ~Gemma();

  // Bytes that a rank needs beside key/value memory: what Create() allocates
  // on the device, and what its exchanges come to take in the host's memory.
  //
  // REQUIRES: the ranks divide the heads.
  static int64_t MemoryBytes(const GemmaConfig& config, const Options& options,
                             int num_ranks);

  // Runs `plan`, the same on all ranks, and returns the logits of
  // plan.logit_rows, [rows, vocab] fp32 in the host's memory, on rank 0; no
  // rows on the others.  Valid (and writable) until the next call.
  //
  // A row depends on its own sequence alone: bit for bit the same in any batch
  // and with any chunking, on one rank of the CPU backend.
  //
  // REQUIRES: plan fits Options and the store (DecodeStepPlan() checks that).
  // Errors: the backend's or the collective's; the group cannot go on then.
  absl::StatusOr<Tensor> Forward(const StepPlan& plan,
                                 const Observer& observer = nullptr);

 private:
  class Impl;
  explicit Gemma(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_GEMMA_H_
