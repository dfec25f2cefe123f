// Attention of queries over the pages of a global layer, which lie on all ranks
// (page p on rank p mod N).  What is smaller travels:
//
//   queries   every rank's heads are gathered, each rank attends with all of
//             them over its own pages, and the partial results go back to the
//             heads' ranks, where they are merged by their log-sum-exp
//   keys      pages come to every rank, through a bounded buffer: a segment at
//             a time, whose partial results are merged
//
// (architecture 5.2; the rule is ChooseTravel().)

#ifndef WORKER_PARALLEL_CONTEXT_ATTENTION_H_
#define WORKER_PARALLEL_CONTEXT_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"

namespace lapidary {

// Owned by the rank's engine thread.  All ranks call the same operations in the
// same order.
//
// Errors of the operations: the collective's.
class ContextAttention {
 public:
  // The largest of all global layers and steps.
  struct Limits {
    DType dtype = DType::kF32;  // Of queries and pages.
    int num_heads = 0;          // H
    int head_dim = 0;           // d
    int key_page_values = 0;    // K * 64 * 2A
    int value_page_values = 0;  // K * 64 * d
    int max_step_tokens = 0;    // Query rows under head split.
    int max_range_tokens = 0;   // Query rows under token split.
    int gather_pages = 0;       // Of the buffer that keys travel through.
  };

  // Pages of one sequence in a layer.
  struct Pages {
    KvPlanes planes;  // Of this rank.
    // Of logical pages 0, 1, …; kNoPage for those of other ranks.
    std::span<const PageId> table;
  };

  // References must outlive it.  A group of one needs no memory.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<ContextAttention>> Create(
      const Limits& limits, Backend& backend, Collective& collective);
  ~ContextAttention();

  ContextAttention(const ContextAttention&) = delete;
  ContextAttention& operator=(const ContextAttention&) = delete;

  // Bytes that Create() allocates on a rank of a group of `num_ranks`.
  static int64_t MemoryBytes(const Limits& limits, int num_ranks);

  // Queries travel.  `q` [T, H * d] has this rank's heads and gets the others';
  // `out` [T, H / N * d] gets the results of this rank's heads, for the rows of
  // `sequences`, all of whose keys are in pages.
  absl::Status ByQueries(const KvPlanes& planes, Tensor q,
                         std::span<const AttentionSequence> sequences,
                         Tensor out);

  // Keys travel.  `step` holds queries, step keys and the sequence they belong
  // to, and is attended to as it stands, with the pages before its step keys
  // (`context` positions) in addition.  Its planes and page table are ignored.
  absl::Status ByKeys(const Pages& pages, int context, AttendArgs step);

  // Copies logical pages [first_page, end_page) to pages first_slot, … of
  // `to`, on every rank.  The pages must be there: written before the step.
  absl::Status GatherPages(const Pages& pages, int first_page, int end_page,
                           const KvPlanes& to, int first_slot);

 private:
  // Rows [first, first + count) of a step.
  struct RowRun {
    int first;
    int count;
  };

  ContextAttention(const Limits& limits, Backend& backend,
                   Collective& collective)
      : limits_(limits), backend_(backend), collective_(collective) {}

  absl::Status GatherSegment(const Pages& pages, int first_page, int end_page,
                             const KvPlanes& to, int first_slot);
  absl::Status Allocate();
  absl::Status AllocateTo(int64_t bytes, void*& memory);
  void ListRuns(std::span<const AttentionSequence> sequences);
  absl::Status GatherQueries(Tensor q);
  absl::Status ReturnParts(const AttentionPart& ours, int head_dim);
  AttentionPart PartFrom(int rank, int rows, int head_dim) const;
  absl::Status Exchange(CollectiveKind kind);

  const Limits limits_;
  Backend& backend_;
  Collective& collective_;
  std::vector<void*> allocations_;

  void* part_out_ = nullptr;   // fp32, what this rank's pages give.
  void* part_lse_ = nullptr;   // fp32
  void* other_out_ = nullptr;  // fp32, other ranks' parts or earlier segments.
  void* other_lse_ = nullptr;
  void* key_buffer_ = nullptr;    // [gather_pages, key_page_values]
  void* value_buffer_ = nullptr;  // [gather_pages, value_page_values]
  std::vector<PageId> slots_;     // 0, 1, …: the buffer's page table.

  // Of the call that runs; members to keep their memory.
  std::vector<RowRun> runs_;
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
  std::vector<AttentionPart> parts_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_CONTEXT_ATTENTION_H_
