#include "common/deadline.h"

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

TEST(DeadlineTest, AreInOrder) {
  const Deadline soon = Deadline::In(absl::Hours(1));
  EXPECT_LT(soon, soon + absl::Seconds(1));
  EXPECT_LT(soon, Deadline::Never());
  EXPECT_FALSE(Deadline::Never() + absl::Seconds(1) < Deadline::Never());
  EXPECT_GT((soon + absl::Hours(1)).left(), absl::Hours(1));
}

}  // namespace
}  // namespace lapidary
