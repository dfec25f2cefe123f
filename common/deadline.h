// When a wait gives up, by a clock that nobody sets.

#ifndef COMMON_DEADLINE_H_
#define COMMON_DEADLINE_H_

#include "absl/time/time.h"

namespace lapidary {

// A point in time of the steady clock: setting the machine's clock neither
// brings it nearer nor puts it off.
class Deadline {
 public:
  static Deadline Never() { return Deadline(absl::InfiniteDuration()); }
  // `limit` from now; one that is not positive has passed.
  static Deadline In(absl::Duration limit);

  // Zero once it has passed, infinite if it never does.
  absl::Duration left() const;
  bool has_passed() const { return left() == absl::ZeroDuration(); }

 private:
  explicit Deadline(absl::Duration time) : time_(time) {}

  absl::Duration time_;  // Since the steady clock's beginning.
};

}  // namespace lapidary

#endif  // COMMON_DEADLINE_H_
