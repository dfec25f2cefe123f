#include "tools/in_process_group.h"

#include <cstring>
#include <string>
#include <utility>

#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/gloo_collective.h"

namespace lapidary {

absl::StatusOr<std::unique_ptr<InProcessGroup>> InProcessGroup::Load(
    const ModelOptions& options, int num_ranks, Link link) {
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
  if (link == Link::kGloo && num_ranks > 1) {
    RETURN_IF_ERROR(group->ConnectByGloo());
  }
  return group;
}

InProcessGroup::InProcessGroup(int num_ranks)
    : group_(num_ranks), results_(num_ranks) {
  for (int rank = 0; rank < num_ranks; ++rank) {
    collectives_.push_back(&group_.rank(rank));
  }
}

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
    return models_[rank]->Allocate(pages, *collectives_[rank]);
  });
}

// The ranks learn each other's addresses through the group of threads.
absl::Status InProcessGroup::ConnectByGloo() {
  constexpr int kMaxBytes = 1 << 16;  // Of a rank's addresses.
  gloo_.resize(size());
  const auto all_gather =
      [&](int rank,
          const std::string& mine) -> absl::StatusOr<std::vector<std::string>> {
    CHECK_LE(mine.size() + sizeof(float), size_t{kMaxBytes});
    constexpr int kFloats = kMaxBytes / sizeof(float);
    std::vector<float> own(kFloats), all(size_t{kFloats} * size());
    const auto length = static_cast<uint32_t>(mine.size());
    std::memcpy(own.data(), &length, sizeof(length));
    std::memcpy(own.data() + 1, mine.data(), mine.size());
    RETURN_IF_ERROR(
        AllGather(group_.rank(rank), Traffic::kControl,
                  {own.data(), DType::kF32, 1, kFloats, kFloats},
                  {all.data(), DType::kF32, size(), kFloats, kFloats}));
    std::vector<std::string> strings;
    for (int r = 0; r < size(); ++r) {
      const float* theirs = all.data() + int64_t{r} * kFloats;
      uint32_t bytes = 0;
      std::memcpy(&bytes, theirs, sizeof(bytes));
      strings.emplace_back(reinterpret_cast<const char*>(theirs + 1), bytes);
    }
    return strings;
  };
  return OnAllRanks([&](int rank) -> absl::Status {
    ASSIGN_OR_RETURN(gloo_[rank],
                     ConnectGloo({.rank = rank,
                                  .num_ranks = size(),
                                  .host = "127.0.0.1",
                                  .all_gather = [&](std::string mine) {
                                    return all_gather(rank, mine);
                                  }}));
    collectives_[rank] = gloo_[rank].get();
    return absl::OkStatus();
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
