// Steps sequences through a model in the order that the caller says: what the
// worker's engine does with a scheduler, for measurements and parity.

#ifndef TOOLS_SEQUENCE_DRIVER_H_
#define TOOLS_SEQUENCE_DRIVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/tensor.h"
#include "worker/cache/kv_cache.h"
#include "worker/model/gemma.h"
#include "worker/model/gemma_config.h"
#include "worker/model/loaded_model.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Owned by the model's thread.
class SequenceDriver {
 public:
  struct Options {
    int max_sequences = 1;
    int max_tokens = 0;       // Of a sequence, prompt and output.
    int max_step_tokens = 0;  // Of a sequence in a step.
  };

  // A sequence and how far it has been computed.
  struct Sequence {
    std::vector<TokenId> tokens;
    int num_computed = 0;
    KvCache::Lease lease;
  };

  // One sequence's part of a step: its next `num_tokens` tokens.
  struct Part {
    Sequence* sequence = nullptr;
    int num_tokens = 0;
    std::vector<int> logit_positions = {};  // Ascending, among those tokens.
  };

  // Sees the logits [vocab] at a position.
  using LogitSink =
      std::function<void(int position, std::span<const float> logits)>;

  // Pages for the largest steps that `options` allow.
  static KvCache::Options CacheFor(const GemmaConfig& config,
                                   const Options& options);

  // `gemma` has a KvStore of as many pages as `cache`, and outlives this.
  SequenceDriver(Gemma& gemma, const KvCache::Options& cache);

  // For a model that has no key/value memory yet: gives it what it needs.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<SequenceDriver>> Create(
      LoadedModel& model, const Options& options);

  Sequence NewSequence(std::vector<TokenId> tokens);

  // Counts the next `num_tokens` tokens as computed.  Their pages hold what
  // they held before.
  absl::Status Skip(int num_tokens, Sequence& sequence);

  // Runs one step and returns the logits of the parts' positions, in order.
  // Valid until the next step.
  absl::StatusOr<Tensor> Step(std::span<const Part> parts,
                              const Gemma::Observer& observer = nullptr);

  // Computes the rest of `sequence`, at most `chunk` tokens a step, and shows
  // `sink` the logits at `positions`, which ascend.
  absl::Status Prefill(Sequence& sequence, int chunk,
                       std::span<const int> positions, const LogitSink& sink,
                       const Gemma::Observer& observer = nullptr);

 private:
  // Appends one part to plan_.
  absl::Status AddPart(const Part& part);

  Gemma& gemma_;
  KvCache cache_;
  StepPlan plan_;
};

}  // namespace lapidary

#endif  // TOOLS_SEQUENCE_DRIVER_H_
