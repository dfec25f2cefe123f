#include "common/ticker.h"

#include <future>
#include <memory>

#include "absl/time/time.h"
#include "common/mutex.h"
#include "common/testing/fake_clock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(TickerTest, CallsAgainAndAgain) {
  int num_calls = 0;
  std::promise<void> third;
  Ticker ticker(absl::Milliseconds(1));
  const auto subscription = ticker.Subscribe([&] {
    if (++num_calls == 3) third.set_value();
  });
  third.get_future().wait();
}

TEST(TickerTest, CallsEachSubscriber) {
  std::promise<void> first;
  std::promise<void> second;
  Ticker ticker(absl::Milliseconds(1));
  const auto call_once = [](std::promise<void>& called) {
    return [&called, done = false]() mutable {
      if (!done) called.set_value();
      done = true;
    };
  };
  const auto one = ticker.Subscribe(call_once(first));
  const auto two = ticker.Subscribe(call_once(second));
  first.get_future().wait();
  second.get_future().wait();
}

// Rounds that last made the time between them more than a second.
TEST(TickerTest, RoundsThatLastAreNoFurtherApart) {
  constexpr absl::Duration kPeriod = absl::Milliseconds(900);
  FakeClock clock;
  absl::Time due = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time last = due;
    clock.Advance(absl::Milliseconds(i % 900));  // The round of `last`.
    due = Ticker::NextRound(last, kPeriod, clock.Now());
    EXPECT_EQ(due - last, kPeriod);
    clock.Advance(due - clock.Now());
  }
}

TEST(TickerTest, RoundsThatWereMissedAreNotMadeUpFor) {
  FakeClock clock;
  const absl::Time due = clock.Now();
  clock.Advance(absl::Minutes(1));
  EXPECT_EQ(Ticker::NextRound(due, absl::Seconds(1), clock.Now()), clock.Now());
}

TEST(TickerTest, ASubscriptionMayEndInItsOwnCall) {
  Mutex mutex;
  std::promise<void> called;
  std::unique_ptr<Ticker::Subscription> subscription;
  Ticker ticker(absl::Milliseconds(1));
  {
    MutexLock lock(mutex);
    subscription = ticker.Subscribe([&] {
      MutexLock lock(mutex);
      subscription.reset();
      called.set_value();
    });
  }
  called.get_future().wait();
}

// A late alarm once called back on the thread that set it, which held a lock
// that the call took too, and the process stood still.
TEST(TickerTest, NeverCallsOnTheSubscribersThread) {
  Mutex mutex;
  Ticker ticker(absl::Nanoseconds(1));
  for (int i = 0; i < 1000; ++i) {
    std::unique_ptr<Ticker::Subscription> subscription;
    MutexLock lock(mutex);
    subscription = ticker.Subscribe([&] { MutexLock lock(mutex); });
    subscription.reset();
  }
}

}  // namespace
}  // namespace lapidary
