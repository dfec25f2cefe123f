// A group of ranks in one process, a thread each, for measurements and parity:
// what a group of worker processes is without the processes.

#ifndef TOOLS_IN_PROCESS_GROUP_H_
#define TOOLS_IN_PROCESS_GROUP_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/mutex.h"
#include "kernels/tensor.h"
#include "worker/model/gemma.h"
#include "worker/model/kv_store.h"
#include "worker/model/loaded_model.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/local_collective.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Used by one thread.
class InProcessGroup {
 public:
  // What the ranks exchange by: memory, or TCP on loopback as processes do.
  enum class Link { kThreads, kGloo };

  // Loads the model once a rank, all over one packed image; options.cpu.threads
  // are those of each rank.
  //
  // Errors: those of LoadedModel::Load() and ConnectGloo().
  static absl::StatusOr<std::unique_ptr<InProcessGroup>> Load(
      const ModelOptions& options, int num_ranks, Link link = Link::kThreads);
  ~InProcessGroup();

  InProcessGroup(const InProcessGroup&) = delete;
  InProcessGroup& operator=(const InProcessGroup&) = delete;

  int size() const { return static_cast<int>(models_.size()); }

  // LoadedModel::Allocate() on all ranks.
  absl::Status Allocate(const KvPages& pages);

  // Runs `plan` on all ranks and returns the logits of rank 0.  `observer` sees
  // rank 0's rows.  The group cannot go on after an error.
  absl::StatusOr<Tensor> Forward(const StepPlan& plan,
                                 const Gemma::Observer& observer = nullptr);

  LoadedModel& model(int rank) { return *models_[rank]; }
  const Collective& collective(int rank) const { return *collectives_[rank]; }

 private:
  InProcessGroup(int num_ranks);

  // Runs `work` on each rank's thread and returns the first error.
  absl::Status OnAllRanks(std::function<absl::Status(int rank)> work);
  void RankLoop(int rank);
  absl::Status ConnectByGloo();

  LocalGroup group_;
  std::vector<std::unique_ptr<Collective>> gloo_;  // By rank; empty: none.
  std::vector<Collective*> collectives_;           // By rank.
  std::vector<std::unique_ptr<LoadedModel>> models_;
  std::vector<absl::Status> results_;  // By rank; read when none is running.

  Mutex mutex_;
  CondVar changed_;
  std::function<absl::Status(int)> work_ ABSL_GUARDED_BY(mutex_);
  int64_t round_ ABSL_GUARDED_BY(mutex_) = 0;  // Counts calls of OnAllRanks().
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace lapidary

#endif  // TOOLS_IN_PROCESS_GROUP_H_
