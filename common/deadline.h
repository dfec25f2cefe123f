// When a wait gives up, by a clock that nobody sets.

#ifndef COMMON_DEADLINE_H_
#define COMMON_DEADLINE_H_

#include "absl/time/time.h"

namespace lapidary {

// A point in time of SteadyNow(): setting the machine's clock neither brings it
// nearer nor puts it off.
class Deadline {
 public:
  static Deadline Never() { return Deadline(absl::InfiniteFuture()); }
  // `limit` from now; one that is not positive has passed.
  static Deadline In(absl::Duration limit);

  // Zero once it has passed, infinite if it never does.
  absl::Duration left() const;
  bool has_passed() const { return left() == absl::ZeroDuration(); }

  // left() as poll() takes it: milliseconds, rounded up; -1 is for ever.
  int PollTimeout() const;

  // `grace` later.
  Deadline operator+(absl::Duration grace) const {
    return Deadline(time_ + grace);
  }
  // The earlier one is less.
  bool operator<(Deadline other) const { return time_ < other.time_; }

 private:
  explicit Deadline(absl::Time time) : time_(time) {}

  absl::Time time_;
};

}  // namespace lapidary

#endif  // COMMON_DEADLINE_H_
