#include "worker/model/head_split_attention.h"

#include "common/status_macros.h"
#include "worker/parallel/context_split.h"

namespace lapidary {

HeadSplitAttention::HeadSplitAttention(const RankResources& resources)
    : parts_(resources),
      batch_(resources.config.window, resources.collective.rank(),
             resources.collective.size()) {}

void HeadSplitAttention::Reset(const StepPlan& plan) { batch_.Reset(plan); }

absl::Status HeadSplitAttention::Run(int l, const LayerWeights& w) {
  const LayerConfig& layer = parts_.config.layers[l];
  const KvPlanes& planes = parts_.store.planes(l);
  const RopeTable& rope = parts_.workspace.rope(layer.type);
  const AttentionTensors t = parts_.workspace.Attention(layer);
  const Tensor normed = parts_.workspace.normed;
  Backend& backend = parts_.backend;

  backend.MatMul(normed, w.q, t.q);
  backend.MatMul(normed, w.k, t.k);
  if (!layer.k_eq_v) backend.MatMul(normed, w.v, t.values);
  backend.QkNormRope({.q = t.q,
                      .k = t.k,
                      .v = layer.k_eq_v ? t.k : t.values,
                      .q_norm = w.q_norm,
                      .k_norm = w.k_norm,
                      .epsilon = parts_.config.rms_norm_epsilon,
                      .head_dim = layer.head_dim,
                      .key_half = layer.key_half,
                      .cos = rope.cos,
                      .sin = rope.sin,
                      .num_angles = rope.num_angles,
                      .keys = t.keys,
                      .values = t.values});
  if (layer.type == LayerType::kGlobal) {
    RETURN_IF_ERROR(AttendGlobal(layer, planes, t));
  } else {
    AttendWindow(planes, t);
  }
  backend.MatMul(t.out, w.o, parts_.workspace.branch);
  return absl::OkStatus();
}

// A global layer's keys all go to their pages, each to the rank that owns it.
absl::Status HeadSplitAttention::AttendGlobal(const LayerConfig& layer,
                                              const KvPlanes& planes,
                                              const AttentionTensors& t) {
  const FamilyBatch& family = batch_.global();
  parts_.backend.WriteKv({.keys = t.keys,
                          .values = t.values,
                          .planes = planes,
                          .sequences = family.sequences,
                          .first_positions = family.first_positions});
  if (parts_.collective.size() > 1) return AttendOverRanks(layer, planes, t);
  parts_.backend.Attend({.q = t.q,
                         .planes = planes,
                         .step_keys = {},
                         .step_values = {},
                         .sequences = family.sequences,
                         .num_heads = parts_.config.num_heads,
                         .out = t.out,
                         .lse = {}});
  return absl::OkStatus();
}

// Per sequence, its queries go to the pages or the pages to its queries.
absl::Status HeadSplitAttention::AttendOverRanks(const LayerConfig& layer,
                                                 const KvPlanes& planes,
                                                 const AttentionTensors& t) {
  const int num_heads = parts_.config.num_heads;
  const int own_heads = num_heads / parts_.collective.size();
  const GlobalShape shape = {.num_heads = num_heads,
                             .kv_heads = layer.num_kv_heads,
                             .head_dim = layer.head_dim,
                             .key_half = layer.key_half,
                             .activation_bytes = SizeOf(t.q.dtype)};
  by_queries_.clear();
  for (const AttentionSequence& sequence : batch_.global().sequences) {
    if (ChooseTravel(sequence.start, sequence.num_tokens, shape) ==
        Travel::kQueries) {
      by_queries_.push_back(sequence);
      continue;
    }
    RETURN_IF_ERROR(parts_.context_attention.ByKeys(
        {.planes = planes,
         .table = {sequence.pages, static_cast<size_t>(sequence.num_pages)}},
        sequence.start,
        {.q = t.q,
         .planes = planes,
         .step_keys = t.keys,
         .step_values = t.values,
         .sequences = {&sequence, 1},
         .num_heads = own_heads,
         .first_head = parts_.collective.rank() * own_heads,
         .num_layer_heads = num_heads,
         .out = t.out,
         .lse = {}}));
  }
  if (by_queries_.empty()) return absl::OkStatus();
  return parts_.context_attention.ByQueries(planes, t.all_q, by_queries_,
                                            t.out);
}

// A window layer's step reads its own keys from the workspace; only what later
// steps can see goes to pages.
void HeadSplitAttention::AttendWindow(const KvPlanes& planes,
                                      const AttentionTensors& t) {
  const FamilyBatch& family = batch_.window();
  parts_.backend.Attend(
      {.q = t.q,
       .planes = planes,
       .step_keys = t.keys,
       .step_values = t.values,
       .sequences = family.sequences,
       .num_heads = parts_.config.num_heads / parts_.collective.size(),
       .window = parts_.config.window,
       .out = t.out,
       .lse = {}});
  parts_.backend.WriteKv({.keys = t.keys,
                          .values = t.values,
                          .planes = planes,
                          .sequences = family.sequences,
                          .first_positions = family.first_positions});
}

}  // namespace lapidary
