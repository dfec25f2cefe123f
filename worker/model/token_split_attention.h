// Attention of a round in which each rank computes all heads of its range of
// one prompt.
//
//   window layer   k, v ─► halo to the next ranks, tail to the heads' ranks
//                  q    ─► attend over [halo | range]
//   global layer   raw k ─► all ranks, which norm and rotate it alike
//                  q     ─► attend over the replica of the prompt's latents, or
//                           over earlier pages gathered again and the round
//
// What travels does so while q is computed.

#ifndef WORKER_MODEL_TOKEN_SPLIT_ATTENTION_H_
#define WORKER_MODEL_TOKEN_SPLIT_ATTENTION_H_

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/attention.h"
#include "worker/model/gemma_weights.h"
#include "worker/model/rank_resources.h"
#include "worker/model/workspace.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/context_split.h"
#include "worker/parallel/window_exchange.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Owned by the model's thread.
class TokenSplitAttention {
 public:
  // `resources` must outlive it.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<TokenSplitAttention>> Create(
      const RankResources& resources);

  // Bytes that Create() allocates.
  static int64_t MemoryBytes(const GemmaConfig& config, DType dtype,
                             int num_ranks);

  // REQUIRES: the plan's layout is kTokenSplit; it outlives the step.
  void Reset(const StepPlan& plan);

  const RoundSplit& split() const { return *split_; }
  PositionRange range() const;  // This rank's.
  PositionRange halo() const;
  std::span<const int> range_positions() const;
  std::span<const int> round_positions() const { return positions_; }

  // branch = attention(normed), whole, for this rank's range.  `w` are the
  // whole weights of layer `l`.
  absl::Status Run(int l, const LayerWeights& w);

 private:
  TokenSplitAttention(const RankResources& resources,
                      std::unique_ptr<WindowExchange> window_exchange)
      : parts_(resources), window_exchange_(std::move(window_exchange)) {}

  absl::Status Window(int l, const LayerWeights& w);
  absl::Status Global(int l, const LayerWeights& w);
  void Queries(const LayerConfig& layer, const LayerWeights& w, Tensor q,
               int rope_row);
  void Keys(const LayerConfig& layer, const LayerWeights& w, Tensor k,
            Tensor keys, Tensor values);
  absl::StatusOr<Collective::ExchangeId> StartKeys(const LayerConfig& layer,
                                                   const AttentionTensors& t);
  absl::Status AttendReplica(int l, const AttentionTensors& t);
  absl::Status AttendGathered(int l, const AttentionTensors& t);
  // This rank's range in the rows of the round.
  Tensor RangeOf(Tensor round_rows) const;

  const RankResources& parts_;
  const std::unique_ptr<WindowExchange> window_exchange_;

  // Of the round.
  std::optional<RoundSplit> split_;
  int replica_tokens_ = kNoReplica;
  std::vector<int> positions_;
  std::vector<PageId> owned_pages_;  // kNoPage for those of other ranks.
  std::vector<PageId> identity_;     // The page table of the replica.
  AttentionSequence round_;          // The round in this rank's global pages.
  AttentionSequence window_pages_;   // The sequence's window pages.
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_TOKEN_SPLIT_ATTENTION_H_
