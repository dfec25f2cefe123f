#include "worker/model/gemma.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/model/exchange_memory.h"
#include "worker/model/head_split_attention.h"
#include "worker/model/rank_resources.h"
#include "worker/model/rank_weights.h"
#include "worker/model/token_split_attention.h"
#include "worker/model/workspace.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/context_attention.h"

namespace lapidary {
namespace {

Workspace::Shape WorkspaceShape(const Gemma::Options& options, int rank,
                                int num_ranks) {
  return {.max_step_tokens = options.max_step_tokens,
          .max_range_tokens = num_ranks > 1 ? options.max_range_tokens : 0,
          .max_logit_rows = options.max_logit_rows,
          .rank = rank,
          .num_ranks = num_ranks};
}

ContextAttention::Limits ContextLimits(const GemmaConfig& config,
                                       const Gemma::Options& options) {
  ContextAttention::Limits limits = {
      .dtype = options.compute,
      .num_heads = config.num_heads,
      .max_step_tokens = options.max_step_tokens,
      .max_range_tokens = options.max_range_tokens,
      .gather_pages = options.gather_pages};
  for (const LayerConfig& layer : config.layers) {
    if (layer.type != LayerType::kGlobal) continue;
    const int page_rows = layer.num_kv_heads * kPageTokens;
    limits.head_dim = std::max(limits.head_dim, layer.head_dim);
    limits.key_page_values =
        std::max(limits.key_page_values, page_rows * 2 * layer.key_half);
    limits.value_page_values =
        std::max(limits.value_page_values, page_rows * layer.head_dim);
  }
  return limits;
}

}  // namespace

class Gemma::Impl {
 public:
  Impl(const GemmaConfig& config, const GemmaWeights& weights, KvStore& store,
       Backend& backend, Collective& collective, const Options& options,
       std::unique_ptr<Workspace> workspace,
       std::unique_ptr<ContextAttention> context_attention)
      : config_(config),
        options_(options),
        whole_weights_(weights),
        weights_(WeightsOfRank(config, weights, collective.rank(),
                               collective.size())),
        backend_(backend),
        collective_(collective),
        workspace_(std::move(workspace)),
        ws_(*workspace_),
        context_attention_(std::move(context_attention)),
        resources_{config_,     store, backend_,
                   collective_, ws_,   *context_attention_},
        head_split_(resources_) {}

  // Makes ready for rounds.
  absl::Status AllowTokenSplit();

  absl::StatusOr<Tensor> Forward(const StepPlan& plan,
                                 const Observer& observer);

 private:
  void Prepare(const StepPlan& plan);
  void PrepareHeadSplit(const StepPlan& plan);
  void PrepareTokenSplit(const StepPlan& plan);
  void FillRope(LayerType type, std::span<const int> positions);
  void LookUpSoftTokensAsPad(std::span<const TokenId> tokens);
  absl::Status TransformerLayer(int l);
  absl::Status Attention(int l);
  absl::Status FeedForward(const LayerWeights& w);
  absl::StatusOr<Tensor> Head(const StepPlan& plan);
  void NormLogitRows(std::span<const int> rows, int first_row, Tensor out);
  absl::Status NormRangeLogitRows(std::span<const int> rows);
  absl::Status GatherLogits();
  absl::Status Observe(const Observer& observer, int layer, Tensor hidden);

  const GemmaConfig& config_;
  const Options options_;
  const GemmaWeights whole_weights_;  // For token split.
  const GemmaWeights weights_;        // This rank's views, for head split.
  Backend& backend_;
  Collective& collective_;
  const std::unique_ptr<Workspace> workspace_;
  Workspace& ws_;
  const std::unique_ptr<ContextAttention> context_attention_;
  const RankResources resources_;
  HeadSplitAttention head_split_;
  std::unique_ptr<TokenSplitAttention> token_split_;  // Null: no rounds.

  // Of the step.
  Layout layout_ = Layout::kHeadSplit;
  std::vector<TokenId> embedded_;  // This rank's tokens, as they are looked up.
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
};

absl::Status Gemma::Impl::AllowTokenSplit() {
  ASSIGN_OR_RETURN(token_split_, TokenSplitAttention::Create(resources_));
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Gemma::Impl::Forward(const StepPlan& plan,
                                            const Observer& observer) {
  Prepare(plan);
  backend_.Embed(weights_.embedding, embedded_, config_.embed_scale,
                 ws_.residual);
  RETURN_IF_ERROR(Observe(observer, 0, ws_.residual));
  for (int l = 0; l < config_.num_layers(); ++l) {
    if (options_.progress != nullptr) options_.progress->layer = l;
    RETURN_IF_ERROR(TransformerLayer(l));
    RETURN_IF_ERROR(Observe(observer, l + 1, ws_.residual));
  }
  if (observer) {
    backend_.RmsNorm(ws_.residual, weights_.final_norm,
                     config_.rms_norm_epsilon, ws_.normed);
    RETURN_IF_ERROR(Observe(observer, config_.num_layers() + 1, ws_.normed));
  }
  return Head(plan);
}

// Sizes the workspace, and computes what all layers share.
void Gemma::Impl::Prepare(const StepPlan& plan) {
  CHECK_LE(static_cast<int>(plan.logit_rows.size()), options_.max_logit_rows);
  layout_ = plan.layout;
  if (layout_ == Layout::kHeadSplit) {
    PrepareHeadSplit(plan);
  } else {
    PrepareTokenSplit(plan);
  }
}

void Gemma::Impl::PrepareHeadSplit(const StepPlan& plan) {
  const int num_tokens = static_cast<int>(plan.tokens.size());
  CHECK_LE(num_tokens, options_.max_step_tokens);
  ws_.SetRows({.layout = layout_,
               .tokens = num_tokens,
               .logits = static_cast<int>(plan.logit_rows.size())});
  head_split_.Reset(plan);
  LookUpSoftTokensAsPad(plan.tokens);
  FillRope(LayerType::kWindow, head_split_.positions());
  FillRope(LayerType::kGlobal, head_split_.positions());
}

void Gemma::Impl::PrepareTokenSplit(const StepPlan& plan) {
  CHECK(token_split_ != nullptr) << "a round, but no memory for one";
  token_split_->Reset(plan);
  const PositionRange range = token_split_->range();
  const PositionRange round = token_split_->split().round();
  CHECK_LE(range.size(), options_.max_range_tokens);
  ws_.SetRows({.layout = layout_,
               .tokens = range.size(),
               .round = round.size(),
               .halo = token_split_->halo().size(),
               .logits = static_cast<int>(plan.logit_rows.size())});
  LookUpSoftTokensAsPad(
      std::span(plan.tokens).subspan(range.begin - round.begin, range.size()));
  FillRope(LayerType::kWindow, token_split_->range_positions());
  FillRope(LayerType::kGlobal, token_split_->round_positions());
}

void Gemma::Impl::FillRope(LayerType type, std::span<const int> positions) {
  const RopeTable& rope = ws_.rope(type);
  if (rope.num_angles == 0) return;  // No layer is of this type.
  backend_.RopeAngles(positions, config_.rope(type).inverse_frequencies,
                      rope.cos, rope.sin);
}

void Gemma::Impl::LookUpSoftTokensAsPad(std::span<const TokenId> tokens) {
  embedded_.assign(tokens.begin(), tokens.end());
  for (const TokenId id : config_.soft_token_ids) {
    std::replace(embedded_.begin(), embedded_.end(), id,
                 TokenId{config_.pad_token_id});
  }
}

absl::Status Gemma::Impl::TransformerLayer(int l) {
  const LayerWeights& w = layout_ == Layout::kHeadSplit
                              ? weights_.layers[l]
                              : whole_weights_.layers[l];
  const float epsilon = config_.rms_norm_epsilon;
  const Tensor x = ws_.residual;

  backend_.RmsNorm(x, w.input_norm, epsilon, ws_.normed);
  RETURN_IF_ERROR(Attention(l));
  backend_.RmsNorm(ws_.branch, w.post_attention_norm, epsilon, ws_.branch);
  backend_.Add(x, ws_.branch, 1.0f, x);

  backend_.RmsNorm(x, w.pre_feedforward_norm, epsilon, ws_.normed);
  RETURN_IF_ERROR(FeedForward(w));
  backend_.RmsNorm(ws_.branch, w.post_feedforward_norm, epsilon, ws_.branch);
  backend_.Add(x, ws_.branch, w.layer_scalar, x);
  return absl::OkStatus();
}

// branch = attention(normed)
absl::Status Gemma::Impl::Attention(int l) {
  if (layout_ == Layout::kTokenSplit) {
    return token_split_->Run(l, whole_weights_.layers[l]);
  }
  RETURN_IF_ERROR(head_split_.Run(l, weights_.layers[l]));
  return collective_.AllReduceSum(config_.layers[l].type == LayerType::kWindow
                                      ? Traffic::kWindowLayer
                                      : Traffic::kGlobalLayer,
                                  ws_.branch);
}

// branch = down(gelu(gate(normed)) * up(normed)), under head split summed over
// the ranks' columns.
absl::Status Gemma::Impl::FeedForward(const LayerWeights& w) {
  const int f = ws_.gated.cols;
  backend_.MatMul(ws_.normed, w.gate, ws_.gate_up.Cols(0, f));
  backend_.MatMul(ws_.normed, w.up, ws_.gate_up.Cols(f, f));
  backend_.GeluMul(ws_.gate_up, ws_.gated);
  backend_.MatMul(ws_.gated, w.down, ws_.branch);
  if (layout_ == Layout::kTokenSplit) return absl::OkStatus();
  return collective_.AllReduceSum(Traffic::kFeedForward, ws_.branch);
}

// Logits of the step's rows: each rank its vocabulary, the leader gets all.
absl::StatusOr<Tensor> Gemma::Impl::Head(const StepPlan& plan) {
  if (!plan.logit_rows.empty()) {
    if (layout_ == Layout::kHeadSplit) {
      NormLogitRows(plan.logit_rows, /*first_row=*/0, ws_.final_state);
    } else {
      RETURN_IF_ERROR(NormRangeLogitRows(plan.logit_rows));
    }
    const RowShare share =
        ShareOfRows(config_.vocab_size, collective_.rank(), collective_.size());
    const Tensor own = ws_.logits.Cols(share.first, share.count);
    backend_.MatMul(ws_.final_state, weights_.head, own);
    if (config_.logit_softcap > 0) {
      backend_.SoftCap(own, config_.logit_softcap);
    }
    RETURN_IF_ERROR(GatherLogits());
  }
  RETURN_IF_ERROR(backend_.Synchronize());
  if (ws_.host_logits.rows > 0) {
    backend_.CopyToHost(
        ws_.logits.data,
        int64_t{ws_.logits.rows} * ws_.logits.cols * SizeOf(DType::kF32),
        ws_.host_logits.data);
  }
  return ws_.host_logits;
}

// Row rows[i] - first_row of the residual stream, normed, becomes row i of
// `out`.  One operation for each run of neighbouring rows.
void Gemma::Impl::NormLogitRows(std::span<const int> rows, int first_row,
                                Tensor out) {
  const int size = static_cast<int>(rows.size());
  int count = 0;
  for (int first = 0; first < size; first += count) {
    count = 1;
    while (first + count < size && rows[first + count] == rows[first] + count) {
      ++count;
    }
    backend_.RmsNorm(ws_.residual.Rows(rows[first] - first_row, count),
                     weights_.final_norm, config_.rms_norm_epsilon,
                     out.Rows(first, count));
  }
}

// The same for a round: each row comes from the rank whose range it is in.
absl::Status Gemma::Impl::NormRangeLogitRows(std::span<const int> rows) {
  const RoundSplit& split = token_split_->split();
  const int start = split.round().begin;
  sends_.clear();
  receives_.clear();
  for (int rank = 0; rank < collective_.size(); ++rank) {
    const PositionRange range = split.range(rank);
    const auto at = [&](int position) {
      return static_cast<int>(
          std::lower_bound(rows.begin(), rows.end(), position - start) -
          rows.begin());
    };
    const int first = at(range.begin);
    const int count = at(range.end) - first;
    if (count == 0) continue;
    const Tensor part = ws_.final_state.Rows(first, count);
    if (rank != collective_.rank()) {
      receives_.push_back({rank, part});
      continue;
    }
    NormLogitRows(rows.subspan(first, count), range.begin - start, part);
    for (int to = 0; to < collective_.size(); ++to) {
      if (to != rank) sends_.push_back({to, part});
    }
  }
  return Exchange(collective_, CollectiveKind::kBroadcast, Traffic::kHead,
                  sends_, receives_);
}

absl::Status Gemma::Impl::GatherLogits() {
  const auto columns_of = [&](int rank) {
    const RowShare share =
        ShareOfRows(config_.vocab_size, rank, collective_.size());
    return ws_.logits.Cols(share.first, share.count);
  };
  sends_.clear();
  receives_.clear();
  if (collective_.rank() > 0) {
    sends_.push_back({0, columns_of(collective_.rank())});
  } else {
    for (int rank = 1; rank < collective_.size(); ++rank) {
      receives_.push_back({rank, columns_of(rank)});
    }
  }
  return Exchange(collective_, CollectiveKind::kGather, Traffic::kHead, sends_,
                  receives_);
}

absl::Status Gemma::Impl::Observe(const Observer& observer, int layer,
                                  Tensor hidden) {
  if (!observer) return absl::OkStatus();
  RETURN_IF_ERROR(backend_.Synchronize());
  observer(layer, hidden);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Gemma>> Gemma::Create(
    const GemmaConfig& config, const GemmaWeights& weights, KvStore& store,
    Backend& backend, Collective& collective, const Options& options) {
  CHECK_EQ(options.max_range_tokens % kPageTokens, 0);
  const int num_ranks = collective.size();
  RETURN_IF_ERROR(CheckDivides(config, num_ranks));
  const Workspace::Shape shape =
      WorkspaceShape(options, collective.rank(), num_ranks);
  ASSIGN_OR_RETURN(std::unique_ptr<Workspace> workspace,
                   Workspace::Create(config, shape, options.compute, backend));
  ASSIGN_OR_RETURN(std::unique_ptr<ContextAttention> context_attention,
                   ContextAttention::Create(ContextLimits(config, options),
                                            backend, collective));
  auto impl = std::make_unique<Impl>(config, weights, store, backend,
                                     collective, options, std::move(workspace),
                                     std::move(context_attention));
  if (shape.max_range_tokens > 0) RETURN_IF_ERROR(impl->AllowTokenSplit());
  return std::unique_ptr<Gemma>(new Gemma(std::move(impl)));
}

int64_t Gemma::MemoryBytes(const GemmaConfig& config, const Options& options,
                           int num_ranks) {
  const Workspace::Shape shape = WorkspaceShape(options, 0, num_ranks);
  int64_t bytes =
      Workspace::MemoryBytes(config, shape, options.compute) +
      ContextAttention::MemoryBytes(ContextLimits(config, options), num_ranks) +
      ExchangeMemoryBytes(config, shape, options.gather_pages, options.compute);
  if (shape.max_range_tokens > 0) {
    bytes +=
        TokenSplitAttention::MemoryBytes(config, options.compute, num_ranks);
  }
  return bytes;
}

Gemma::Gemma(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gemma::~Gemma() = default;

absl::StatusOr<Tensor> Gemma::Forward(const StepPlan& plan,
                                      const Observer& observer) {
  return impl_->Forward(plan, observer);
}

}  // namespace lapidary
