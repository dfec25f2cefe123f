#include "worker/rpc/ticker.h"

#include <atomic>
#include <future>
#include <memory>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(TickerTest, CallsAgainAndAgain) {
  std::atomic<int> num_calls = 0;
  std::promise<void> third;
  const Ticker ticker(absl::Milliseconds(5), [&] {
    if (++num_calls == 3) third.set_value();
  });
  third.get_future().wait();
}

TEST(TickerTest, MayEndFromItsOwnCall) {
  std::promise<void> called;
  std::unique_ptr<Ticker> ticker;
  std::promise<void> constructed;
  ticker = std::make_unique<Ticker>(absl::Milliseconds(1), [&] {
    constructed.get_future().wait();
    ticker.reset();
    called.set_value();
  });
  constructed.set_value();
  called.get_future().wait();
}

}  // namespace
}  // namespace lapidary
