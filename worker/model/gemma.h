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
#include "worker/schedule/step_plan.h"

namespace lapidary {

// One rank's share of the model.  Owned by one thread, the same as its backend.
class Gemma {
 public:
  struct Options {
    DType compute = DType::kBf16;  // Activations, pages, what ranks exchange.
    int max_step_tokens = 512;     // The largest batch that Forward() takes.
    int max_logit_rows = 64;
  };

  // Sees the residual stream [T, h] in the backend's memory: the scaled
  // embedding as layer 0, the stream after each layer l as l + 1, and what the
  // final norm makes of it as num_layers + 1.
  using Observer = std::function<void(int layer, Tensor hidden)>;

  // Allocates all the memory that Forward() will need.  References must
  // outlive the model.
  //
  // Errors: RESOURCE_EXHAUSTED; INVALID_ARGUMENT if the ranks do not divide
  // the heads.
  static absl::StatusOr<std::unique_ptr<Gemma>> Create(
      const GemmaConfig& config, const GemmaWeights& weights, KvStore& store,
      Backend& backend, Collective& collective, const Options& options);
  ~Gemma();

  // Runs `plan` and returns the logits of plan.logit_rows, [rows, vocab] fp32
  // in the host's memory, on every rank.  Valid (and writable) until the next
  // call.
  //
  // A row depends on its own sequence alone: bit for bit the same in any batch
  // and with any chunking, on one rank of the CPU backend.
  //
  // REQUIRES: plan fits Options; its ids are below vocab_size.
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
