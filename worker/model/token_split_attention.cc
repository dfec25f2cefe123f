#include "worker/model/token_split_attention.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

WindowExchange::Limits LimitsOf(const GemmaConfig& config, DType dtype,
                                int num_ranks) {
  WindowExchange::Limits limits = {.dtype = dtype, .window = config.window};
  for (const LayerConfig& layer : config.layers) {
    if (layer.type != LayerType::kWindow) continue;
    const int heads = ShareOfKvHeads(layer.num_kv_heads, 0, num_ranks).count;
    limits.key_cols = std::max(limits.key_cols, heads * 2 * layer.key_half);
    limits.value_cols = std::max(limits.value_cols, heads * layer.head_dim);
  }
  return limits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenSplitAttention>>
TokenSplitAttention::Create(const RankResources& resources) {
  ASSIGN_OR_RETURN(std::unique_ptr<WindowExchange> window_exchange,
                   WindowExchange::Create(
                       LimitsOf(resources.config, resources.workspace.dtype(),
                                resources.collective.size()),
                       resources.backend, resources.collective));
  return std::unique_ptr<TokenSplitAttention>(
      new TokenSplitAttention(resources, std::move(window_exchange)));
}

int64_t TokenSplitAttention::MemoryBytes(const GemmaConfig& config, DType dtype,
                                         int num_ranks) {
  return WindowExchange::MemoryBytes(LimitsOf(config, dtype, num_ranks));
}

void TokenSplitAttention::Reset(const StepPlan& plan) {
  CHECK_EQ(plan.sequences.size(), 1u);
  const SequenceStep& step = plan.sequences.front();
  const int rank = parts_.collective.rank();
  const int num_ranks = parts_.collective.size();
  split_.emplace(step.start, plan.range_ends, parts_.config.window);
  CHECK_EQ(split_->num_ranks(), num_ranks);
  CHECK_EQ(split_->round().size(), step.num_tokens);
  replica_tokens_ = plan.replica_tokens;
  positions_.resize(step.num_tokens);
  std::iota(positions_.begin(), positions_.end(), step.start);

  owned_pages_.assign(step.num_global_pages, kNoPage);
  for (int p = rank; p < step.num_global_pages; p += num_ranks) {
    owned_pages_[p] = plan.global_pages[step.first_global_page + p];
  }
  identity_.resize(step.num_global_pages);
  std::iota(identity_.begin(), identity_.end(), 0);
  round_ = {.first_row = 0,
            .num_tokens = step.num_tokens,
            .start = step.start,
            .pages = owned_pages_.data(),
            .first_page = 0,
            .num_pages = step.num_global_pages};
  window_pages_ = {.pages = plan.window_pages.data() + step.first_window_page,
                   .first_page = step.window_base,
                   .num_pages = step.num_window_pages};
}

PositionRange TokenSplitAttention::range() const {
  return split_->range(parts_.collective.rank());
}

PositionRange TokenSplitAttention::halo() const {
  return split_->halo(parts_.collective.rank());
}

std::span<const int> TokenSplitAttention::range_positions() const {
  return std::span(positions_)
      .subspan(range().begin - split_->round().begin, range().size());
}

Tensor TokenSplitAttention::RangeOf(Tensor round_rows) const {
  return round_rows.Rows(range().begin - split_->round().begin, range().size());
}

absl::Status TokenSplitAttention::Run(int l, const LayerWeights& w) {
  return parts_.config.layers[l].type == LayerType::kWindow ? Window(l, w)
                                                            : Global(l, w);
}

absl::Status TokenSplitAttention::Window(int l, const LayerWeights& w) {
  const LayerConfig& layer = parts_.config.layers[l];
  const AttentionTensors t = parts_.workspace.Attention(layer);
  const int num_earlier = halo().size();
  const Tensor keys = t.keys.Rows(num_earlier, range().size());
  const Tensor values = t.values.Rows(num_earlier, range().size());
  Backend& backend = parts_.backend;

  backend.MatMul(parts_.workspace.normed, w.k, t.k);
  if (!layer.k_eq_v) backend.MatMul(parts_.workspace.normed, w.v, values);
  Keys(layer, w, t.k, keys, values);
  RETURN_IF_ERROR(
      window_exchange_->Start(*split_, {.planes = parts_.store.planes(l),
                                        .kv_heads = layer.num_kv_heads,
                                        .keys = t.keys,
                                        .values = t.values,
                                        .pages = window_pages_}));
  Queries(layer, w, t.q, /*rope_row=*/0);
  RETURN_IF_ERROR(window_exchange_->FinishHalo());

  KvPlanes planes = parts_.store.planes(l);
  planes.kv_heads = layer.num_kv_heads;
  const AttentionSequence sequence = {.first_row = 0,
                                      .num_tokens = range().size(),
                                      .start = range().begin,
                                      .earlier_keys = num_earlier};
  if (!range().empty()) {
    backend.Attend({.q = t.q,
                    .planes = planes,
                    .step_keys = t.keys,
                    .step_values = t.values,
                    .sequences = {&sequence, 1},
                    .num_heads = parts_.config.num_heads,
                    .window = parts_.config.window,
                    .out = t.out,
                    .lse = {}});
  }
  RETURN_IF_ERROR(window_exchange_->FinishTail());
  backend.MatMul(t.out, w.o, parts_.workspace.branch);
  return absl::OkStatus();
}

absl::Status TokenSplitAttention::Global(int l, const LayerWeights& w) {
  const LayerConfig& layer = parts_.config.layers[l];
  const AttentionTensors t = parts_.workspace.Attention(layer);
  Backend& backend = parts_.backend;

  backend.MatMul(parts_.workspace.normed, w.k, RangeOf(t.k));
  if (!layer.k_eq_v) {
    backend.MatMul(parts_.workspace.normed, w.v, RangeOf(t.values));
  }
  ASSIGN_OR_RETURN(const Collective::ExchangeId keys, StartKeys(layer, t));
  Queries(layer, w, t.q, range().begin - split_->round().begin);
  RETURN_IF_ERROR(parts_.collective.Wait(keys));
  Keys(layer, w, t.k, t.keys, t.values);
  backend.WriteKv({.keys = t.keys,
                   .values = t.values,
                   .planes = parts_.store.planes(l),
                   .sequences = {&round_, 1},
                   .first_positions = {&round_.start, 1}});
  RETURN_IF_ERROR(replica_tokens_ == kNoReplica ? AttendGathered(l, t)
                                                : AttendReplica(l, t));
  backend.MatMul(t.out, w.o, parts_.workspace.branch);
  return absl::OkStatus();
}

void TokenSplitAttention::Queries(const LayerConfig& layer,
                                  const LayerWeights& w, Tensor q,
                                  int rope_row) {
  const RopeTable& rope = parts_.workspace.rope(layer.type);
  parts_.backend.MatMul(parts_.workspace.normed, w.q, q);
  parts_.backend.QkNormRope({.q = q,
                             .k = {},
                             .v = {},
                             .q_norm = w.q_norm,
                             .k_norm = w.k_norm,
                             .epsilon = parts_.config.rms_norm_epsilon,
                             .head_dim = layer.head_dim,
                             .key_half = layer.key_half,
                             .cos = rope.cos_row(rope_row),
                             .sin = rope.sin_row(rope_row),
                             .num_angles = rope.num_angles,
                             .keys = {},
                             .values = {}});
}

// The rows of `k` are those of the layer's rope table, from the first on.
void TokenSplitAttention::Keys(const LayerConfig& layer, const LayerWeights& w,
                               Tensor k, Tensor keys, Tensor values) {
  const RopeTable& rope = parts_.workspace.rope(layer.type);
  parts_.backend.QkNormRope({.q = {},
                             .k = k,
                             .v = layer.k_eq_v ? k : values,
                             .q_norm = w.q_norm,
                             .k_norm = w.k_norm,
                             .epsilon = parts_.config.rms_norm_epsilon,
                             .head_dim = layer.head_dim,
                             .key_half = layer.key_half,
                             .cos = rope.cos,
                             .sin = rope.sin,
                             .num_angles = rope.num_angles,
                             .keys = keys,
                             .values = values});
}

// Raw keys, from which every rank makes the same bits of what is stored.
absl::StatusOr<Collective::ExchangeId> TokenSplitAttention::StartKeys(
    const LayerConfig& layer, const AttentionTensors& t) {
  const int start = split_->round().begin;
  const auto add = [&](int rank, PositionRange range,
                       std::vector<RankPart>& list) {
    if (range.empty()) return;
    list.push_back({rank, t.k.Rows(range.begin - start, range.size())});
    if (layer.k_eq_v) return;
    list.push_back({rank, t.values.Rows(range.begin - start, range.size())});
  };
  sends_.clear();
  receives_.clear();
  for (int rank = 0; rank < split_->num_ranks(); ++rank) {
    if (rank == parts_.collective.rank()) continue;
    add(rank, range(), sends_);
    add(rank, split_->range(rank), receives_);
  }
  return parts_.collective.Start(CollectiveKind::kAllGather,
                                 Traffic::kGlobalLayer, sends_, receives_);
}

absl::Status TokenSplitAttention::AttendReplica(int l,
                                                const AttentionTensors& t) {
  const KvPlanes& replica = parts_.store.replica(l);
  const int start = split_->round().begin;
  if (replica_tokens_ < start) {
    const int first = replica_tokens_ / kPageTokens;
    RETURN_IF_ERROR(parts_.context_attention.GatherPages(
        {.planes = parts_.store.planes(l), .table = owned_pages_}, first,
        NumPages(start), replica, first));
  }
  AttentionSequence sequence = round_;
  sequence.pages = identity_.data();
  parts_.backend.WriteKv({.keys = t.keys,
                          .values = t.values,
                          .planes = replica,
                          .sequences = {&sequence, 1},
                          .first_positions = {&sequence.start, 1}});
  sequence.num_tokens = range().size();
  sequence.start = range().begin;
  if (range().empty()) return absl::OkStatus();
  parts_.backend.Attend({.q = t.q,
                         .planes = replica,
                         .step_keys = {},
                         .step_values = {},
                         .sequences = {&sequence, 1},
                         .num_heads = parts_.config.num_heads,
                         .out = t.out,
                         .lse = {}});
  return absl::OkStatus();
}

absl::Status TokenSplitAttention::AttendGathered(int l,
                                                 const AttentionTensors& t) {
  const int start = split_->round().begin;
  const AttentionSequence sequence = {.first_row = 0,
                                      .num_tokens = range().size(),
                                      .start = range().begin,
                                      .earlier_keys = range().begin - start};
  return parts_.context_attention.ByKeys(
      {.planes = parts_.store.planes(l), .table = owned_pages_}, start,
      {.q = t.q,
       .planes = parts_.store.planes(l),
       .step_keys = t.keys,
       .step_values = t.values,
       .sequences = {&sequence, 1},
       .num_heads = parts_.config.num_heads,
       .out = t.out,
       .lse = {}});
}

}  // namespace lapidary
