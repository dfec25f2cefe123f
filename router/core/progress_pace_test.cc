#include "router/core/progress_pace.h"

#include <algorithm>
#include <random>

#include "absl/time/time.h"
#include "common/testing/fake_clock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

constexpr absl::Duration kPromise = absl::Seconds(1);

// A client whose router asks every kTick.
class ProgressPaceTest : public ::testing::Test {
 protected:
  // Lets `duration` pass, then asks.
  void Tick(absl::Duration duration = ProgressPace::kTick) {
    clock_.Advance(duration);
    if (!pace_.IsDue(clock_.Now())) return;
    pace_.OnMessage(clock_.Now());
    Hear();
  }

  // A message of the group goes to the client.
  void Forward() {
    pace_.OnMessage(clock_.Now());
    Hear();
  }

  void Hear() {
    longest_silence_ = std::max(longest_silence_, clock_.Now() - last_heard_);
    last_heard_ = clock_.Now();
    ++num_heard_;
  }

  FakeClock clock_;
  ProgressPace pace_{clock_.Now()};
  absl::Time last_heard_ = clock_.Now();
  absl::Duration longest_silence_;
  int num_heard_ = 0;
};

TEST_F(ProgressPaceTest, AGroupThatIsSilentLeavesNoSecondWithoutAMessage) {
  for (int i = 0; i < 36'000; ++i) Tick();  // An hour.
  EXPECT_LT(longest_silence_, kPromise);
  EXPECT_EQ(num_heard_, 4500);
}

TEST_F(ProgressPaceTest, NoTimingOfTheGroupLeavesASecondWithoutAMessage) {
  std::mt19937 random(1);
  for (int i = 0; i < 36'000; ++i) {
    const auto before_message = absl::Milliseconds(random() % 100);
    if (random() % 12 == 0) {
      clock_.Advance(before_message);
      Forward();
      Tick(ProgressPace::kTick - before_message);
    } else {
      Tick();
    }
  }
  EXPECT_LT(longest_silence_, kPromise);
}

TEST_F(ProgressPaceTest, AMessageOfTheGroupSavesOneOfTheRouter) {
  for (int i = 0; i < 1000; ++i) {
    Tick();
    if (i % 5 == 0) Forward();
  }
  EXPECT_EQ(num_heard_, 200);  // The group's alone.
}

}  // namespace
}  // namespace lapidary
