#include "common/deadline.h"

#include <algorithm>

#include "common/steady_time.h"

namespace lapidary {

Deadline Deadline::In(absl::Duration limit) {
  return Deadline(SteadyNow() + limit);
}

absl::Duration Deadline::left() const {
  return std::max(time_ - SteadyNow(), absl::ZeroDuration());
}

}  // namespace lapidary
