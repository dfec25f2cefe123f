// A rank's share of the weights under head split: views, no copies.
//
//   rows     q, k, v, gate, up   the rank's heads and MLP columns
//   columns  o, down             what they feed; the ranks' products are summed
//   rows     head                its vocabulary; the leader gathers the logits
//
// k and v of a global layer stay whole: its keys are split over the ranks by
// pages, and a rank stores all heads of its pages.  k and v of a window layer
// with fewer heads than ranks are computed by several ranks alike.

#ifndef WORKER_MODEL_RANK_WEIGHTS_H_
#define WORKER_MODEL_RANK_WEIGHTS_H_

#include "absl/status/status.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"

namespace lapidary {

// Rows [first, first + count) of a matrix, whole blocks of 16.
struct RowShare {
  int first = 0;
  int count = 0;
};

// Shares that differ by at most one block.
//
// REQUIRES: `rows` is a multiple of 16.
RowShare ShareOfRows(int rows, int rank, int num_ranks);

// What a rank of N computes with under head split.
struct RankShape {
  int num_heads = 0;     // H / N
  RowShare mlp_columns;  // Of F.
  RowShare vocabulary;   // Rows of its head.
};

// The largest group that a model may be split over.
inline constexpr int kMaxSplit = 64;

// Errors: INVALID_ARGUMENT with the numbers of ranks that work, unless
// `num_ranks` divides the heads, and divides the window layers' KV heads or is
// a multiple of them.
absl::Status CheckDivides(const GemmaConfig& config, int num_ranks);

// REQUIRES of both: CheckDivides(config, num_ranks) is OK.
RankShape ShapeOfRank(const GemmaConfig& config, int rank, int num_ranks);
GemmaWeights WeightsOfRank(const GemmaConfig& config, GemmaWeights weights,
                           int rank, int num_ranks);

}  // namespace lapidary

#endif  // WORKER_MODEL_RANK_WEIGHTS_H_
