#include "worker/model/exchange_memory.h"

#include <algorithm>

#include "common/tokens.h"

namespace lapidary {
namespace {

// Bytes that a rank packs for the others and unpacks of theirs, by exchange.
class Exchanges {
 public:
  Exchanges(const GemmaConfig& config, const Workspace::Shape& shape,
            int gather_pages, DType dtype)
      : config_(config),
        shape_(shape),
        gather_pages_(gather_pages),
        dtype_bytes_(SizeOf(dtype)) {}

  int64_t SumBytes() const {
    return int64_t{shape_.max_step_tokens} * config_.hidden_size * dtype_bytes_;
  }

  int64_t LogitsBytes() const {
    return int64_t{shape_.max_logit_rows} * config_.vocab_size *
           SizeOf(DType::kF32);
  }

  // Partial results out and in, with their log-sum-exp; the queries before
  // them are smaller.
  int64_t PartialResultsBytes(const LayerConfig& layer) const {
    return 2 * int64_t{shape_.max_step_tokens} * config_.num_heads *
           (layer.head_dim + 1) * SizeOf(DType::kF32);
  }

  // A buffer of pages comes in; the rank's share of it goes to every other.
  int64_t PagesBytes(const LayerConfig& layer) const {
    const int64_t page = kPageTokens * KeyRowBytes(layer);
    return (2 * int64_t{gather_pages_} + shape_.num_ranks) * page;
  }

  // Raw keys and values of the round, where values travel: the range goes to
  // every other rank.
  int64_t RoundKeysBytes(const LayerConfig& layer) const {
    if (layer.k_eq_v) return 0;
    return 2 * int64_t{shape_.max_round_tokens()} * layer.num_kv_heads * 2 *
           layer.head_dim * dtype_bytes_;
  }

  // Up to W - 1 positions to every other rank, and as many from all of them.
  int64_t HaloBytes(const LayerConfig& layer) const {
    if (shape_.max_range_tokens == 0) return 0;
    return shape_.num_ranks * int64_t{config_.window - 1} * KeyRowBytes(layer);
  }

  // Every rank's heads of up to W - 1 positions, its own from the others; a
  // head that several ranks hold goes to each.
  int64_t TailBytes(const LayerConfig& layer) const {
    if (shape_.max_range_tokens == 0) return 0;
    const int64_t heads = std::max(layer.num_kv_heads, shape_.num_ranks);
    return int64_t{config_.window - 1} * KeyRowBytes(layer) * heads /
           layer.num_kv_heads;
  }

 private:
  // Keys and values of a position as they are stored.
  int64_t KeyRowBytes(const LayerConfig& layer) const {
    return int64_t{layer.num_kv_heads} * (2 * layer.key_half + layer.head_dim) *
           dtype_bytes_;
  }

  const GemmaConfig& config_;
  const Workspace::Shape& shape_;
  const int gather_pages_;
  const int64_t dtype_bytes_;
};

}  // namespace

// One exchange at a time, but that a window layer's tail is started while its
// halo is under way: all others take the memory that the halo takes.
int64_t ExchangeMemoryBytes(const GemmaConfig& config,
                            const Workspace::Shape& shape, int gather_pages,
                            DType dtype) {
  if (shape.num_ranks == 1) return 0;
  const Exchanges exchanges(config, shape, gather_pages, dtype);
  int64_t first = exchanges.LogitsBytes();
  int64_t second = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.type == LayerType::kWindow) {
      first = std::max(first, exchanges.HaloBytes(layer));
      second = std::max(second, exchanges.TailBytes(layer));
      continue;
    }
    first = std::max({first, exchanges.PartialResultsBytes(layer),
                      exchanges.PagesBytes(layer),
                      exchanges.RoundKeysBytes(layer)});
  }
  return exchanges.SumBytes() + first + second;
}

}  // namespace lapidary
