#include "worker/model/rank_weights.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/tensor.h"
#include "worker/parallel/context_split.h"

namespace lapidary {
namespace {

bool Divides(const GemmaConfig& config, int num_ranks) {
  if (num_ranks < 1 || config.num_heads % num_ranks != 0) return false;
  return std::all_of(config.layers.begin(), config.layers.end(),
                     [&](const LayerConfig& layer) {
                       return layer.type == LayerType::kGlobal ||
                              layer.num_kv_heads % num_ranks == 0 ||
                              num_ranks % layer.num_kv_heads == 0;
                     });
}

PackedMatrix Rows(const PackedMatrix& w, RowShare share) {
  return w.Rows(share.first, share.count);
}

PackedMatrix Columns(const PackedMatrix& w, RowShare share) {
  return w.Cols(share.first, share.count);
}

}  // namespace

RowShare ShareOfRows(int rows, int rank, int num_ranks) {
  const int64_t blocks = rows / PackedMatrix::kBlockRows;
  const auto border = [&](int64_t r) {
    return static_cast<int>(blocks * r / num_ranks) * PackedMatrix::kBlockRows;
  };
  return {.first = border(rank), .count = border(rank + 1) - border(rank)};
}

absl::Status CheckDivides(const GemmaConfig& config, int num_ranks) {
  const int most =
      std::min({kMaxSplit, config.intermediate_size / PackedMatrix::kBlockRows,
                config.vocab_size / PackedMatrix::kBlockRows});
  if (num_ranks <= most && Divides(config, num_ranks)) return absl::OkStatus();
  std::vector<int> working;
  for (int n = 1; n <= most; ++n) {
    if (Divides(config, n)) working.push_back(n);
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "needs a number of ranks that divides the model's heads: %s; got %d",
      absl::StrJoin(working, ", "), num_ranks));
}

RankShape ShapeOfRank(const GemmaConfig& config, int rank, int num_ranks) {
  return {.num_heads = config.num_heads / num_ranks,
          .mlp_columns = ShareOfRows(config.intermediate_size, rank, num_ranks),
          .vocabulary = ShareOfRows(config.vocab_size, rank, num_ranks)};
}

GemmaWeights WeightsOfRank(const GemmaConfig& config, GemmaWeights weights,
                           int rank, int num_ranks) {
  const RankShape shape = ShapeOfRank(config, rank, num_ranks);
  weights.head = Rows(weights.head, shape.vocabulary);
  for (int l = 0; l < config.num_layers(); ++l) {
    const LayerConfig& layer = config.layers[l];
    LayerWeights& w = weights.layers[l];
    const RowShare q = {.first = rank * shape.num_heads * layer.head_dim,
                        .count = shape.num_heads * layer.head_dim};
    w.q = Rows(w.q, q);
    w.o = Columns(w.o, q);
    if (layer.type == LayerType::kWindow) {
      const KvHeadShare heads =
          ShareOfKvHeads(layer.num_kv_heads, rank, num_ranks);
      const RowShare kv = {.first = heads.first * layer.head_dim,
                           .count = heads.count * layer.head_dim};
      w.k = Rows(w.k, kv);
      w.v = Rows(w.v, kv);
    }
    w.gate = Rows(w.gate, shape.mlp_columns);
    w.up = Rows(w.up, shape.mlp_columns);
    w.down = Columns(w.down, shape.mlp_columns);
  }
  return weights;
}

}  // namespace lapidary
