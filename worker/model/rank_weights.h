// A rank's share of the weights under head split: views, no copies.
//
//   rows     q, k, v, gate, up   the rank's heads and MLP columns
//   columns  o, down             what they feed; the ranks' products are summed
//   rows     head                its vocabulary; the ranks' logits are gathered
//
// k and v of a global layer stay whole: its keys are split over the ranks by
// pages, and a rank stores all heads of its pages.

#ifndef WORKER_MODEL_RANK_WEIGHTS_H_
#define WORKER_MODEL_RANK_WEIGHTS_H_

#include "absl/status/status.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"

namespace lapidary {

// What a rank of N computes with.
struct RankShape {
  int num_heads = 0;          // H / N
  int intermediate_size = 0;  // F / N
  int vocab_size = 0;         // Rows of its head.
};

// Errors: INVALID_ARGUMENT if `num_ranks` does not divide the heads, the window
// layers' KV heads, or the MLP and vocabulary in blocks of 16.
absl::Status CheckDivides(const GemmaConfig& config, int num_ranks);

// REQUIRES of both: CheckDivides(config, num_ranks) is OK.
RankShape ShapeOfRank(const GemmaConfig& config, int num_ranks);
GemmaWeights WeightsOfRank(const GemmaConfig& config, GemmaWeights weights,
                           int rank, int num_ranks);

}  // namespace lapidary

#endif  // WORKER_MODEL_RANK_WEIGHTS_H_
