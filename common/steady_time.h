// Time by a clock that nobody sets.

#ifndef COMMON_STEADY_TIME_H_
#define COMMON_STEADY_TIME_H_

#include "absl/time/time.h"

namespace lapidary {

// Since a beginning that only this machine knows: only the difference of two
// such times means something.  Never compare one with absl::Now().
//
// Thread-safe.
absl::Time SteadyNow();

}  // namespace lapidary

#endif  // COMMON_STEADY_TIME_H_
