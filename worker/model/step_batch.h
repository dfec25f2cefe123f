// What the attention of a step needs to know of its StepPlan: positions, and
// each sequence's page table in both families.

#ifndef WORKER_MODEL_STEP_BATCH_H_
#define WORKER_MODEL_STEP_BATCH_H_

#include <span>
#include <vector>

#include "common/tokens.h"
#include "kernels/attention.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// One family of pages as the attention operations take it.  Valid as long as
// the StepBatch and the plan that it was made from.
struct FamilyBatch {
  std::vector<AttentionSequence> sequences;
  // Of each sequence, the first position whose keys this step stores.
  std::vector<int> first_positions;
};

// Refilled every step; allocates only when a step is larger than all before.
class StepBatch {
 public:
  // `window` is W; this is rank `rank` of `num_ranks`.
  StepBatch(int window, int rank, int num_ranks);

  // REQUIRES: the sequences of `plan` follow each other in its tokens without
  // gaps; its page tables cover the positions that the step reads and stores.
  void Reset(const StepPlan& plan);

  std::span<const int> positions() const { return positions_; }
  // Stores every position, on the rank that owns its page; other ranks' pages
  // are kNoPage here.
  const FamilyBatch& global() const { return global_; }
  // Stores the last W-1 positions of the sequence so far, which is what the
  // queries of later steps can see.
  const FamilyBatch& window() const { return window_family_; }

 private:
  void CopyOwnedPages(const StepPlan& plan);

  const int window_;
  const int rank_;
  const int num_ranks_;
  std::vector<int> positions_;
  std::vector<PageId> owned_pages_;  // StepPlan::global_pages, ours alone.
  FamilyBatch global_;
  FamilyBatch window_family_;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_STEP_BATCH_H_
