// Attention of a step in which each rank computes its heads of all tokens.

#ifndef WORKER_MODEL_HEAD_SPLIT_ATTENTION_H_
#define WORKER_MODEL_HEAD_SPLIT_ATTENTION_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "worker/model/gemma_weights.h"
#include "worker/model/rank_resources.h"
#include "worker/model/step_batch.h"
#include "worker/model/workspace.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Owned by the model's thread.
class HeadSplitAttention {
 public:
  explicit HeadSplitAttention(const RankResources& resources);

  // REQUIRES: the plan's layout is kHeadSplit; it outlives the step.
  void Reset(const StepPlan& plan);

  // Of the step's rows.
  std::span<const int> positions() const { return batch_.positions(); }

  // branch = this rank's share of attention(normed): the ranks' shares have to
  // be summed.  `w` are the rank's views of layer `l`.
  absl::Status Run(int l, const LayerWeights& w);

 private:
  absl::Status AttendGlobal(const LayerConfig& layer, const KvPlanes& planes,
                            const AttentionTensors& t);
  absl::Status AttendOverRanks(const LayerConfig& layer, const KvPlanes& planes,
                               const AttentionTensors& t);
  void AttendWindow(const KvPlanes& planes, const AttentionTensors& t);

  const RankResources& parts_;
  StepBatch batch_;
  std::vector<AttentionSequence> by_queries_;  // Of the layer that runs.
};

}  // namespace lapidary

#endif  // WORKER_MODEL_HEAD_SPLIT_ATTENTION_H_
