#include "worker/engine/step_pace.h"

#include <algorithm>

namespace lapidary {
namespace {

// What an earlier, slower step weighs against one that was as planned.
constexpr double kMemory = 0.75;

}  // namespace

void StepPace::Add(absl::Duration planned, absl::Duration measured) {
  if (planned < kLeastPlanned) return;
  const double ratio =
      std::clamp(absl::FDivDuration(measured, planned), 1.0, kMostSlowdown);
  slowdown_ = std::max(ratio, kMemory * slowdown_ + (1 - kMemory) * ratio);
}

}  // namespace lapidary
