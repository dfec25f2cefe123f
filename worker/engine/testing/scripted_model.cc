#include "worker/engine/testing/scripted_model.h"

#include <utility>

namespace lapidary {

Engine::RunStep ScriptedModel::run_step() {
  return [this](const StepPlan& plan) { return Run(plan); };
}

void ScriptedModel::Hold() {
  MutexLock lock(mutex_);
  held_ = true;
}

void ScriptedModel::Allow(int num_steps) {
  MutexLock lock(mutex_);
  allowed_steps_ += num_steps;
  changed_.SignalAll();
}

void ScriptedModel::Open() {
  MutexLock lock(mutex_);
  held_ = false;
  changed_.SignalAll();
}

void ScriptedModel::AwaitHeldStep() {
  MutexLock lock(mutex_);
  while (!waiting_) changed_.Wait(mutex_);
}

void ScriptedModel::Break(absl::Status error) {
  MutexLock lock(mutex_);
  error_ = std::move(error);
}

int ScriptedModel::num_steps() const {
  MutexLock lock(mutex_);
  return num_steps_;
}

int ScriptedModel::num_tokens() const {
  MutexLock lock(mutex_);
  return num_tokens_;
}

absl::StatusOr<StepResult> ScriptedModel::Run(const StepPlan& plan) {
  {
    MutexLock lock(mutex_);
    waiting_ = true;
    changed_.SignalAll();
    while (held_ && allowed_steps_ == 0) changed_.Wait(mutex_);
    waiting_ = false;
    if (held_) --allowed_steps_;
    ++num_steps_;
    num_tokens_ += static_cast<int>(plan.tokens.size());
    if (!error_.ok()) return error_;
  }
  const int rows = static_cast<int>(plan.logit_rows.size());
  logits_.assign(size_t{1} * rows * vocab_size_, 0.0f);
  for (int row = 0; row < rows; ++row) {
    const TokenId last = plan.tokens[plan.logit_rows[row]];
    logits_[size_t{1} * row * vocab_size_ + (last + 1) % vocab_size_] = 10.0f;
  }
  reports_ = {{.step = plan.step}};
  return StepResult{
      .logits = {logits_.data(), DType::kF32, rows, vocab_size_, vocab_size_},
      .reports = reports_};
}

}  // namespace lapidary
