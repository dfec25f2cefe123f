// Ranks as threads of one process: for tests, and for groups of one.

#ifndef WORKER_PARALLEL_LOCAL_COLLECTIVE_H_
#define WORKER_PARALLEL_LOCAL_COLLECTIVE_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/mutex.h"
#include "worker/parallel/collective.h"

namespace lapidary {

// Owns N collectives that meet at a barrier.  Each is used by a thread of its
// own; the group must outlive their use.
//
// An operation meets twice: once to show the ranks' tensors to each other, and
// once before they may be changed again.  Between the two, each rank adds up
// its share of the rows for all, in the order of the ranks: in fp32, with one
// rounding at the end.
//
// REQUIRES of every operation: tensors in the host's memory, complete, and of
// one shape and dtype on all ranks.
class LocalGroup {
 public:
  explicit LocalGroup(int num_ranks);
  ~LocalGroup();

  LocalGroup(const LocalGroup&) = delete;
  LocalGroup& operator=(const LocalGroup&) = delete;

  // With one rank, AllGather may be given one tensor as both x and out.
  Collective& rank(int rank) const;

  // A rank goes: whoever waits for it now or later gets UNAVAILABLE.
  void Abandon();

 private:
  class Rank;

  // Waits for all ranks to arrive.
  absl::Status Meet();

  std::vector<std::unique_ptr<Rank>> ranks_;

  Mutex mutex_;
  CondVar all_arrived_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t meetings_ ABSL_GUARDED_BY(mutex_) = 0;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_LOCAL_COLLECTIVE_H_
