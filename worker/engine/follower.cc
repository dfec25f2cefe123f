#include "worker/engine/follower.h"

#include <pthread.h>

#include <utility>

namespace lapidary {

Follower::Follower(RankParts parts, const PlanLimits& limits,
                   GroupMetrics& metrics, std::function<void()> on_stopped)
    : parts_(std::move(parts)),
      limits_(limits),
      metrics_(metrics),
      on_stopped_(std::move(on_stopped)) {
  thread_ = std::thread([this] { Loop(); });
  pthread_setname_np(thread_.native_handle(), "engine");
}

Follower::~Follower() {
  if (thread_.joinable()) thread_.join();
}

absl::Status Follower::Join() {
  thread_.join();
  return status_;
}

void Follower::Loop() {
  status_ = Follow(
      parts_, limits_, [this](const StepPlan& plan, const StepReport& report) {
        metrics_.CountStep(plan, report);
        metrics_.CountTransfers(parts_.collective.counters());
        metrics_.SetExchangeMemory(parts_.collective.memory_bytes());
      });
  on_stopped_();
}

}  // namespace lapidary
