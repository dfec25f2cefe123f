// A model whose answers tests know: after token t comes t + 1.
//
//   ScriptedModel model(/*vocab_size=*/100);
//   Engine engine(options, model.run_step(), …);

#ifndef WORKER_ENGINE_TESTING_SCRIPTED_MODEL_H_
#define WORKER_ENGINE_TESTING_SCRIPTED_MODEL_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/mutex.h"
#include "kernels/tensor.h"
#include "worker/engine/engine.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Thread-safe.
class ScriptedModel {
 public:
  explicit ScriptedModel(int vocab_size) : vocab_size_(vocab_size) {}

  // A reference to this model, which must outlive it.
  Engine::RunStep run_step();

  // From now on a step waits for its turn until Allow(), or Open() for good.
  void Hold();
  void Allow(int num_steps);
  void Open();

  // Waits until a step has begun that waits for its turn.
  void AwaitHeldStep();

  // Every step from now on fails.
  void Break(absl::Status error);

  int num_steps() const;
  int num_tokens() const;  // Of all steps.

 private:
  absl::StatusOr<StepResult> Run(const StepPlan& plan);

  const int vocab_size_;
  // The engine thread's own.
  std::vector<float> logits_;
  std::vector<StepReport> reports_;

  mutable Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int allowed_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  int num_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_TESTING_SCRIPTED_MODEL_H_
