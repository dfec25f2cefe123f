#include "worker/model/gemma.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/model/rank_weights.h"
#include "worker/model/step_batch.h"
#include "worker/model/workspace.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {

class Gemma::Impl {
 public:
  Impl(const GemmaConfig& config, const GemmaWeights& weights, KvStore& store,
       Backend& backend, Collective& collective, const Options& options,
       std::unique_ptr<Workspace> workspace)
      : config_(config),
        options_(options),
        weights_(WeightsOfRank(config, weights, collective.rank(),
                               collective.size())),
        store_(store),
        backend_(backend),
        collective_(collective),
        workspace_(std::move(workspace)),
        ws_(*workspace_),
        batch_(config.window, collective.rank(), collective.size()) {}

  absl::StatusOr<Tensor> Forward(const StepPlan& plan,
                                 const Observer& observer);

 private:
  void Prepare(const StepPlan& plan);
  void LookUpSoftTokensAsPad(std::span<const TokenId> tokens);
  absl::Status TransformerLayer(int l);
  absl::Status Attention(int l);
  void AttendGlobal(const KvPlanes& planes, const AttentionTensors& t);
  void AttendWindow(const KvPlanes& planes, const AttentionTensors& t);
  absl::Status FeedForward(const LayerWeights& w);
  absl::StatusOr<Tensor> Head(std::span<const int> logit_rows);
  void NormLogitRows(std::span<const int> logit_rows);
  void CopyLogitsToHost();
  absl::Status Observe(const Observer& observer, int layer, Tensor hidden);

  const GemmaConfig& config_;
  const Options options_;
  const GemmaWeights weights_;  // This rank's views.
  KvStore& store_;
  Backend& backend_;
  Collective& collective_;
  const std::unique_ptr<Workspace> workspace_;
  Workspace& ws_;
  StepBatch batch_;
  std::vector<TokenId> embedded_;  // The step's tokens, as they are looked up.
};

absl::StatusOr<Tensor> Gemma::Impl::Forward(const StepPlan& plan,
                                            const Observer& observer) {
  Prepare(plan);
  backend_.Embed(weights_.embedding, embedded_, config_.embed_scale,
                 ws_.residual);
  RETURN_IF_ERROR(Observe(observer, 0, ws_.residual));
  for (int l = 0; l < config_.num_layers(); ++l) {
    RETURN_IF_ERROR(TransformerLayer(l));
    RETURN_IF_ERROR(Observe(observer, l + 1, ws_.residual));
  }
  if (observer) {
    backend_.RmsNorm(ws_.residual, weights_.final_norm,
                     config_.rms_norm_epsilon, ws_.normed);
    RETURN_IF_ERROR(Observe(observer, config_.num_layers() + 1, ws_.normed));
  }
  return Head(plan.logit_rows);
}

// Sizes the workspace, and computes what all layers share.
void Gemma::Impl::Prepare(const StepPlan& plan) {
  const int num_tokens = static_cast<int>(plan.tokens.size());
  const int num_logit_rows = static_cast<int>(plan.logit_rows.size());
  CHECK_LE(num_tokens, options_.max_step_tokens);
  CHECK_LE(num_logit_rows, options_.max_logit_rows);
  ws_.SetRows(num_tokens, num_logit_rows);
  batch_.Reset(plan);
  LookUpSoftTokensAsPad(plan.tokens);
  for (const LayerType type : {LayerType::kWindow, LayerType::kGlobal}) {
    const RopeTable& rope = ws_.rope(type);
    if (rope.num_angles == 0) continue;  // No layer is of this type.
    backend_.RopeAngles(batch_.positions(),
                        config_.rope(type).inverse_frequencies, rope.cos,
                        rope.sin);
  }
}

void Gemma::Impl::LookUpSoftTokensAsPad(std::span<const TokenId> tokens) {
  embedded_.assign(tokens.begin(), tokens.end());
  for (const TokenId id : config_.soft_token_ids) {
    std::replace(embedded_.begin(), embedded_.end(), id,
                 TokenId{config_.pad_token_id});
  }
}

absl::Status Gemma::Impl::TransformerLayer(int l) {
  const LayerWeights& w = weights_.layers[l];
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

// branch = attention(normed), summed over the ranks' heads.
absl::Status Gemma::Impl::Attention(int l) {
  const LayerConfig& layer = config_.layers[l];
  const LayerWeights& w = weights_.layers[l];
  const KvPlanes& planes = store_.planes(l);
  const RopeTable& rope = ws_.rope(layer.type);
  const AttentionTensors t = ws_.Attention(layer, planes.kv_heads);

  backend_.MatMul(ws_.normed, w.q, t.q);
  backend_.MatMul(ws_.normed, w.k, t.k);
  if (!layer.k_eq_v) backend_.MatMul(ws_.normed, w.v, t.values);
  backend_.QkNormRope({.q = t.q,
                       .k = t.k,
                       .v = layer.k_eq_v ? t.k : t.values,
                       .q_norm = w.q_norm,
                       .k_norm = w.k_norm,
                       .epsilon = config_.rms_norm_epsilon,
                       .head_dim = layer.head_dim,
                       .key_half = layer.key_half,
                       .cos = rope.cos,
                       .sin = rope.sin,
                       .num_angles = rope.num_angles,
                       .keys = t.keys,
                       .values = t.values});

  if (layer.type == LayerType::kGlobal) {
    AttendGlobal(planes, t);
  } else {
    AttendWindow(planes, t);
  }
  backend_.MatMul(t.out, w.o, ws_.branch);
  return collective_.AllReduceSum(layer.type == LayerType::kGlobal
                                      ? Traffic::kGlobalLayer
                                      : Traffic::kWindowLayer,
                                  ws_.branch);
}

// A global layer's keys all go to their pages, and are read from there.
void Gemma::Impl::AttendGlobal(const KvPlanes& planes,
                               const AttentionTensors& t) {
  const FamilyBatch& family = batch_.global();
  backend_.WriteKv({.keys = t.keys,
                    .values = t.values,
                    .planes = planes,
                    .sequences = family.sequences,
                    .first_positions = family.first_positions});
  backend_.Attend({.q = t.q,
                   .planes = planes,
                   .step_keys = {},
                   .step_values = {},
                   .sequences = family.sequences,
                   .num_heads = t.q.cols / planes.head_dim,
                   .rank = collective_.rank(),
                   .num_ranks = collective_.size(),
                   .out = t.out});
}

// A window layer's step reads its own keys from the workspace; only what later
// steps can see goes to pages.
void Gemma::Impl::AttendWindow(const KvPlanes& planes,
                               const AttentionTensors& t) {
  const FamilyBatch& family = batch_.window();
  backend_.Attend({.q = t.q,
                   .planes = planes,
                   .step_keys = t.keys,
                   .step_values = t.values,
                   .sequences = family.sequences,
                   .num_heads = t.q.cols / planes.head_dim,
                   .window = config_.window,
                   .out = t.out});
  backend_.WriteKv({.keys = t.keys,
                    .values = t.values,
                    .planes = planes,
                    .sequences = family.sequences,
                    .first_positions = family.first_positions});
}

// branch = down(gelu(gate(normed)) * up(normed)), summed over the ranks.
absl::Status Gemma::Impl::FeedForward(const LayerWeights& w) {
  const int f = ws_.gated.cols;
  backend_.MatMul(ws_.normed, w.gate, ws_.gate_up.Cols(0, f));
  backend_.MatMul(ws_.normed, w.up, ws_.gate_up.Cols(f, f));
  backend_.GeluMul(ws_.gate_up, ws_.gated);
  backend_.MatMul(ws_.gated, w.down, ws_.branch);
  return collective_.AllReduceSum(Traffic::kFeedForward, ws_.branch);
}

absl::StatusOr<Tensor> Gemma::Impl::Head(std::span<const int> logit_rows) {
  if (!logit_rows.empty()) {
    NormLogitRows(logit_rows);
    backend_.MatMul(ws_.final_state, weights_.head, ws_.logits);
    if (config_.logit_softcap > 0) {
      backend_.SoftCap(ws_.logits, config_.logit_softcap);
    }
    RETURN_IF_ERROR(
        AllGather(collective_, Traffic::kHead, ws_.logits, ws_.gathered));
  }
  RETURN_IF_ERROR(backend_.Synchronize());
  CopyLogitsToHost();
  return ws_.host_logits;
}

// One operation for each run of neighbouring rows.
void Gemma::Impl::NormLogitRows(std::span<const int> logit_rows) {
  const int size = static_cast<int>(logit_rows.size());
  int count = 0;
  for (int first = 0; first < size; first += count) {
    count = 1;
    while (first + count < size &&
           logit_rows[first + count] == logit_rows[first] + count) {
      ++count;
    }
    backend_.RmsNorm(ws_.residual.Rows(logit_rows[first], count),
                     weights_.final_norm, config_.rms_norm_epsilon,
                     ws_.final_state.Rows(first, count));
  }
}

// From the ranks' parts of the vocabulary, one after the other, to whole rows.
void Gemma::Impl::CopyLogitsToHost() {
  const int cols = ws_.gathered.cols;
  const int64_t bytes = int64_t{cols} * SizeOf(DType::kF32);
  for (int r = 0; r < ws_.host_logits.rows; ++r) {
    for (int rank = 0; rank < collective_.size(); ++rank) {
      backend_.CopyToHost(ws_.gathered.row(rank * ws_.host_logits.rows + r),
                          bytes,
                          ws_.host_logits.Cols(rank * cols, cols).row(r));
    }
  }
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
  const int num_ranks = collective.size();
  RETURN_IF_ERROR(CheckDivides(config, num_ranks));
  if (num_ranks > 1) {
    return absl::UnimplementedError(absl::StrFormat(
        "needs a group of one rank, it has %d: queries of global layers do not "
        "travel between ranks",
        num_ranks));
  }
  const RankShape shape = ShapeOfRank(config, num_ranks);
  ASSIGN_OR_RETURN(
      std::unique_ptr<Workspace> workspace,
      Workspace::Create(config,
                        {.max_step_tokens = options.max_step_tokens,
                         .max_logit_rows = options.max_logit_rows,
                         .num_heads = shape.num_heads,
                         .intermediate_size = shape.intermediate_size,
                         .vocab_size = shape.vocab_size,
                         .num_ranks = num_ranks},
                        options.compute, backend));
  return std::unique_ptr<Gemma>(new Gemma(
      std::make_unique<Impl>(config, weights, store, backend, collective,
                             options, std::move(workspace))));
}

Gemma::Gemma(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gemma::~Gemma() = default;

absl::StatusOr<Tensor> Gemma::Forward(const StepPlan& plan,
                                      const Observer& observer) {
  return impl_->Forward(plan, observer);
}

}  // namespace lapidary
