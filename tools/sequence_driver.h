// Steps sequences through a group in the order that the caller says: what the
// worker's engine does with a scheduler, for measurements and parity.

#ifndef TOOLS_SEQUENCE_DRIVER_H_
#define TOOLS_SEQUENCE_DRIVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/tensor.h"
#include "tools/in_process_group.h"
#include "worker/cache/kv_cache.h"
#include "worker/model/gemma.h"
#include "worker/model/gemma_config.h"
#include "worker/model/loaded_model.h"
#include "worker/parallel/context_split.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Owned by the model's thread.
class SequenceDriver {
 public:
  struct Options {
    int max_sequences = 1;
    int max_tokens = 0;       // Of a sequence, prompt and output.
    int max_step_tokens = 0;  // Of a sequence in a step.
    int num_ranks = 1;
  };

  // Whether a round uses the ranks' replica of the prompt's latents.
  enum class Replica { kNone, kUse };

  // How a prompt is prefilled in rounds.
  struct Rounds {
    int round_tokens = 0;      // A multiple of kPageTokens.
    int max_range_tokens = 0;  // As the model's.
    TokenCost cost;
    Replica replica = Replica::kUse;
  };

  // How a prompt is prefilled: in steps of at most `chunk` tokens, or in
  // rounds.
  struct Schedule {
    int chunk = 0;
    std::optional<Rounds> rounds = std::nullopt;
  };

  // Runs a step on all ranks; logits of rank 0.
  using Forward = std::function<absl::StatusOr<Tensor>(
      const StepPlan& plan, const Gemma::Observer& observer)>;

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

  // The ranks behind `forward` have as many pages as `cache`.
  SequenceDriver(Forward forward, const KvCache::Options& cache);

  // For a model that has no key/value memory yet: gives it what it needs.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<SequenceDriver>> Create(
      LoadedModel& model, const Options& options);

  // The same for a group; `replica_pages` of each rank.
  static absl::StatusOr<std::unique_ptr<SequenceDriver>> Create(
      InProcessGroup& group, const Options& options, int replica_pages);

  Sequence NewSequence(std::vector<TokenId> tokens);

  // Counts the next `num_tokens` tokens as computed.  Their pages hold what
  // they held before.
  absl::Status Skip(int num_tokens, Sequence& sequence);

  // Runs one step and returns the logits of the parts' positions, in order.
  // Valid until the next step.
  absl::StatusOr<Tensor> Step(std::span<const Part> parts,
                              const Gemma::Observer& observer = nullptr);

  // Runs one round: `part` under token split, rank r to range_ends[r].
  absl::StatusOr<Tensor> StepRound(const Part& part,
                                   std::vector<int> range_ends,
                                   Replica replica);

  // Computes the rest of `sequence` in rounds, as Prefill().
  absl::Status PrefillInRounds(Sequence& sequence, const Rounds& rounds,
                               std::span<const int> positions,
                               const LogitSink& sink);

  // One or the other.
  absl::Status Prefill(Sequence& sequence, const Schedule& schedule,
                       std::span<const int> positions, const LogitSink& sink);

  // Computes the rest of `sequence`, at most `chunk` tokens a step, and shows
  // `sink` the logits at `positions`, which ascend.
  absl::Status Prefill(Sequence& sequence, int chunk,
                       std::span<const int> positions, const LogitSink& sink,
                       const Gemma::Observer& observer = nullptr);

 private:
  // Empties plan_ for the next step.
  void NewPlan();
  // Appends one part to plan_.
  absl::Status AddPart(const Part& part);
  absl::StatusOr<Tensor> RunPlan(std::span<const Part> parts,
                                 const Gemma::Observer& observer);
  // The next `num_tokens` tokens, with those of `positions` among them.
  static Part NextPart(Sequence& sequence, int num_tokens,
                       std::span<const int> positions);
  static void Show(const Part& part, const Tensor& logits,
                   const LogitSink& sink);

  const Forward forward_;
  const int num_ranks_;
  KvCache cache_;
  StepPlan plan_;
  // The sequence that the replica holds, and how much of it.
  const Sequence* replica_owner_ = nullptr;
  int replica_tokens_ = 0;
};

}  // namespace lapidary

#endif  // TOOLS_SEQUENCE_DRIVER_H_
