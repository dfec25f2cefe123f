#include "worker/model/rank_weights.h"

#include "absl/strings/str_format.h"
#include "kernels/tensor.h"

namespace lapidary {
namespace {

absl::Status CheckMultiple(const char* what, int value, int divisor) {
  if (value % divisor == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "needs %s in multiples of %d for this number of ranks, the model has %d",
      what, divisor, value));
}

PackedMatrix RowShare(const PackedMatrix& w, int rank, int num_ranks) {
  const int rows = w.rows / num_ranks;
  return w.Rows(rank * rows, rows);
}

PackedMatrix ColumnShare(const PackedMatrix& w, int rank, int num_ranks) {
  const int cols = w.cols / num_ranks;
  return w.Cols(rank * cols, cols);
}

}  // namespace

absl::Status CheckDivides(const GemmaConfig& config, int num_ranks) {
  absl::Status status =
      CheckMultiple("query heads", config.num_heads, num_ranks);
  for (const LayerConfig& layer : config.layers) {
    if (layer.type == LayerType::kWindow) {
      status.Update(CheckMultiple("KV heads", layer.num_kv_heads, num_ranks));
    }
  }
  const int blocks = PackedMatrix::kBlockRows * num_ranks;
  status.Update(
      CheckMultiple("intermediate size", config.intermediate_size, blocks));
  status.Update(CheckMultiple("vocabulary", config.vocab_size, blocks));
  return status;
}

RankShape ShapeOfRank(const GemmaConfig& config, int num_ranks) {
  return {.num_heads = config.num_heads / num_ranks,
          .intermediate_size = config.intermediate_size / num_ranks,
          .vocab_size = config.vocab_size / num_ranks};
}

GemmaWeights WeightsOfRank(const GemmaConfig& config, GemmaWeights weights,
                           int rank, int num_ranks) {
  weights.head = RowShare(weights.head, rank, num_ranks);
  for (int l = 0; l < config.num_layers(); ++l) {
    LayerWeights& layer = weights.layers[l];
    layer.q = RowShare(layer.q, rank, num_ranks);
    if (config.layers[l].type == LayerType::kWindow) {
      layer.k = RowShare(layer.k, rank, num_ranks);
      layer.v = RowShare(layer.v, rank, num_ranks);
    }
    layer.o = ColumnShare(layer.o, rank, num_ranks);
    layer.gate = RowShare(layer.gate, rank, num_ranks);
    layer.up = RowShare(layer.up, rank, num_ranks);
    layer.down = ColumnShare(layer.down, rank, num_ranks);
  }
  return weights;
}

}  // namespace lapidary
