#include "tools/in_process_group.h"

#include <utility>

#include "common/status_macros.h"

namespace lapidary {

absl::StatusOr<std::unique_ptr<InProcessGroup>> InProcessGroup::Load(
    const ModelOptions& options, int num_ranks) {
  std::unique_ptr<InProcessGroup> group(new InProcessGroup(num_ranks));
  for (int rank = 0; rank < num_ranks; ++rank) {
    ASSIGN_OR_RETURN(std::unique_ptr<LoadedModel> model,
                     LoadedModel::Load(options));
    group->models_.push_back(std::move(model));
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    group->threads_.emplace_back(
        [owner = group.get(), rank] { owner->RankLoop(rank); });
  }
  return group;
}

InProcessGroup::InProcessGroup(int num_ranks)
    : group_(num_ranks), results_(num_ranks) {}

InProcessGroup::~InProcessGroup() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::Status InProcessGroup::Allocate(const KvPages& pages) {
  return OnAllRanks([&](int rank) {
    return models_[rank]->Allocate(pages, group_.rank(rank));
  });
}

absl::StatusOr<Tensor> InProcessGroup::Forward(
    const StepPlan& plan, const Gemma::Observer& observer) {
  Tensor logits;
  RETURN_IF_ERROR(OnAllRanks([&](int rank) -> absl::Status {
    ASSIGN_OR_RETURN(
        const Tensor result,
        models_[rank]->gemma().Forward(plan, rank == 0 ? observer : nullptr));
    if (rank == 0) logits = result;
    return absl::OkStatus();
  }));
  return logits;
}

absl::Status InProcessGroup::OnAllRanks(
    std::function<absl::Status(int rank)> work) {
  {
    MutexLock lock(mutex_);
    work_ = std::move(work);
    ++round_;
    running_ = size();
    changed_.SignalAll();
    while (running_ > 0) changed_.Wait(mutex_);
    work_ = nullptr;
  }
  for (const absl::Status& result : results_) RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

void InProcessGroup::RankLoop(int rank) {
  int64_t done = 0;
  while (true) {
    std::function<absl::Status(int)> work;
    {
      MutexLock lock(mutex_);
      while (round_ == done && !stopping_) changed_.Wait(mutex_);
      if (stopping_) return;
      done = round_;
      work = work_;
    }
    results_[rank] = work(rank);
    if (!results_[rank].ok()) group_.Abandon();
    MutexLock lock(mutex_);
    if (--running_ == 0) changed_.SignalAll();
  }
}

}  // namespace lapidary
