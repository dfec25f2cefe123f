// Time by a clock that nobody sets.

#ifndef COMMON_STEADY_TIME_H_
#define COMMON_STEADY_TIME_H_

#include "absl/time/time.h"

namespace lapidary {

// Since a beginning that only this machine knows: differences are of use, not
// the time itself, nor what lies between it and absl::Now().  Setting the
// machine's clock does not change it.
//
// Thread-safe.
absl::Time SteadyNow();

}  // namespace lapidary

#endif  // COMMON_STEADY_TIME_H_
