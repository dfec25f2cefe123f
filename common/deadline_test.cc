#include "common/deadline.h"

#include <climits>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(DeadlineTest, ComesCloser) {
  const Deadline deadline = Deadline::In(absl::Hours(1));
  const absl::Duration left = deadline.left();
  EXPECT_LE(left, absl::Hours(1));
  EXPECT_LE(deadline.left(), left);
  EXPECT_GT(deadline.left(), absl::ZeroDuration());
  EXPECT_FALSE(deadline.has_passed());
}

TEST(DeadlineTest, HasPassedWhenTheLimitIsNotPositive) {
  for (const absl::Duration limit :
       {absl::ZeroDuration(), absl::Seconds(-1), -absl::InfiniteDuration()}) {
    EXPECT_TRUE(Deadline::In(limit).has_passed());
    EXPECT_EQ(Deadline::In(limit).left(), absl::ZeroDuration());
  }
}

TEST(DeadlineTest, NeverPassesWithoutALimit) {
  for (const Deadline deadline :
       {Deadline::Never(), Deadline::In(absl::InfiniteDuration())}) {
    EXPECT_FALSE(deadline.has_passed());
    EXPECT_EQ(deadline.left(), absl::InfiniteDuration());
  }
}

TEST(DeadlineTest, AreMillisecondsForPoll) {
  EXPECT_EQ(Deadline::Never().PollTimeout(), -1);
  EXPECT_EQ(Deadline::In(absl::Seconds(-1)).PollTimeout(), 0);
  EXPECT_EQ(Deadline::In(absl::Hours(24 * 365)).PollTimeout(), INT_MAX);
  const int hour = Deadline::In(absl::Hours(1)).PollTimeout();
  EXPECT_GT(hour, 3'500'000);
  EXPECT_LE(hour, 3'600'000);
  // Rounded up: it must not end before the deadline.
  const Deadline soon = Deadline::In(absl::Microseconds(1));
  EXPECT_LE(soon.PollTimeout(), 1);
}

TEST(DeadlineTest, AreInOrder) {
  const Deadline soon = Deadline::In(absl::Hours(1));
  EXPECT_LT(soon, soon + absl::Seconds(1));
  EXPECT_LT(soon, Deadline::Never());
  EXPECT_FALSE(Deadline::Never() + absl::Seconds(1) < Deadline::Never());
  EXPECT_GT((soon + absl::Hours(1)).left(), absl::Hours(1));
}

}  // namespace
}  // namespace lapidary
