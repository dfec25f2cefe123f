#include "common/deadline.h"

#include <algorithm>
#include <climits>
#include <cstdint>

#include "common/steady_time.h"

namespace lapidary {

Deadline Deadline::In(absl::Duration limit) {
  return Deadline(SteadyNow() + limit);
}

absl::Duration Deadline::left() const {
  return std::max(time_ - SteadyNow(), absl::ZeroDuration());
}

int Deadline::PollTimeout() const {
  const absl::Duration left = this->left();
  if (left == absl::InfiniteDuration()) return -1;
  const int64_t milliseconds =
      absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
  return static_cast<int>(std::min<int64_t>(milliseconds, INT_MAX));
}

}  // namespace lapidary
