#include "client/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(InterruptTest, RunsTheActionOnASignal) {
  Interrupt interrupt;
  BoundedQueue<int> seen(1);
  Interrupt::Scope scope(interrupt, [&seen] { (void)seen.TryPush(1); });
  ASSERT_EQ(kill(getpid(), SIGINT), 0);
  EXPECT_EQ(seen.PopAllFor(absl::Seconds(30)).size(), 1u);
}

TEST(InterruptDeathTest, EndsTheProcessWithoutAnAction) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Interrupt interrupt;
        kill(getpid(), SIGINT);
        pause();
      },
      testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace lapidary
