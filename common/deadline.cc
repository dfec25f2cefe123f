#include "common/deadline.h"

#include <algorithm>
#include <chrono>

namespace lapidary {
namespace {

absl::Duration SteadyTime() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

Deadline Deadline::In(absl::Duration limit) {
  return Deadline(SteadyTime() + limit);
}

absl::Duration Deadline::left() const {
  return std::max(time_ - SteadyTime(), absl::ZeroDuration());
}

}  // namespace lapidary
