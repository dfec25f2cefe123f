#include "worker/engine/step_pace.h"

#include "gtest/gtest.h"

namespace lapidary {
namespace {

constexpr absl::Duration kPlanned = absl::Seconds(1);

TEST(StepPaceTest, StepsAreAsPlannedAtFirst) {
  EXPECT_EQ(StepPace().slowdown(), 1);
}

TEST(StepPaceTest, FollowsASlowStepAtOnce) {
  StepPace pace;
  pace.Add(kPlanned, absl::Seconds(3));
  EXPECT_EQ(pace.slowdown(), 3);
}

TEST(StepPaceTest, ForgetsItOverSomeSteps) {
  StepPace pace;
  pace.Add(kPlanned, absl::Seconds(3));
  pace.Add(kPlanned, kPlanned);
  EXPECT_EQ(pace.slowdown(), 2.5);
  for (int i = 0; i < 30; ++i) pace.Add(kPlanned, kPlanned);
  EXPECT_LT(pace.slowdown(), 1.01);
}

TEST(StepPaceTest, IsBounded) {
  StepPace pace;
  pace.Add(kPlanned, absl::Hours(1));
  EXPECT_EQ(pace.slowdown(), StepPace::kMostSlowdown);
  pace = StepPace();
  pace.Add(kPlanned, absl::ZeroDuration());
  EXPECT_EQ(pace.slowdown(), 1);
}

TEST(StepPaceTest, LearnsNothingFromShortSteps) {
  StepPace pace;
  pace.Add(absl::Milliseconds(5), absl::Seconds(1));
  pace.Add(absl::ZeroDuration(), absl::Seconds(1));
  EXPECT_EQ(pace.slowdown(), 1);
}

}  // namespace
}  // namespace lapidary
