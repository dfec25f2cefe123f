#include "worker/engine/state_board.h"

#include <utility>

namespace lapidary {
namespace {

bool Matters(const EngineState& before, const EngineState& after) {
  return before.stopped != after.stopped ||
         before.load.running != after.load.running ||
         before.load.waiting != after.load.waiting ||
         before.global_pages.total != after.global_pages.total;
}

}  // namespace

EngineState StateBoard::state() const {
  MutexLock lock(mutex_);
  return state_;
}

void StateBoard::Publish(EngineState state) {
  Listeners listeners;
  {
    MutexLock lock(mutex_);
    state.draining = state_.draining;
    if (!state_.failure.empty()) {
      state.stopped = true;
      state.failure = state_.failure;
      state.failure_cause = state_.failure_cause;
    }
    if (Matters(state_, state)) listeners = listeners_;
    state_ = std::move(state);
  }
  for (const auto& [id, listener] : listeners) listener();
}

void StateBoard::PublishDraining() {
  Listeners listeners;
  {
    MutexLock lock(mutex_);
    if (std::exchange(state_.draining, true)) return;
    listeners = listeners_;
  }
  for (const auto& [id, listener] : listeners) listener();
}

void StateBoard::PublishFailure(const std::string& failure,
                                const std::string& cause) {
  Listeners listeners;
  {
    MutexLock lock(mutex_);
    if (std::exchange(state_.stopped, true)) return;
    state_.draining = true;
    state_.failure = failure;
    state_.failure_cause = cause;
    listeners = listeners_;
  }
  for (const auto& [id, listener] : listeners) listener();
}

StateBoard::ListenerId StateBoard::AddListener(std::function<void()> listener) {
  MutexLock lock(mutex_);
  listeners_.emplace(next_id_, std::move(listener));
  return next_id_++;
}

void StateBoard::RemoveListener(ListenerId id) {
  MutexLock lock(mutex_);
  listeners_.erase(id);
}

}  // namespace lapidary
