#include "router/rpc/dispatcher.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/bounded_queue.h"
#include "common/testing/fake_clock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_worker_client.h"

namespace lapidary {
namespace {

// Something that a handler holds.
class Held {
 public:
  explicit Held(std::atomic<int>& num_copies) : num_copies_(num_copies) {}
  Held(Held&&) = default;
  Held(const Held& other) : num_copies_(other.num_copies_) { ++num_copies_; }

 private:
  std::atomic<int>& num_copies_;
};

class DispatcherTest : public ::testing::Test {
 protected:
  // Says that it was ticked and ignores the rest.
  Dispatcher::Handler CountTicks() {
    return {.on_start = [](WorkerClient&, const std::string&, int) {},
            .on_failure = [](const Refusal&) {},
            .on_tick =
                [this](absl::Time) { static_cast<void>(ticks_.TryPush(1)); }};
  }

  static std::vector<std::unique_ptr<WorkerClient>> Clients(FakeGroup& group) {
    std::vector<std::unique_ptr<WorkerClient>> clients;
    clients.push_back(group.NewClient());
    return clients;
  }

  static RouterCore::Options Options() {
    RouterCore::Options options;
    options.registry.addresses = {"group:1"};
    return options;
  }

  BoundedQueue<int> ticks_{1000};
  FakeClock clock_;
  FakeGroup group_{v1::DescribeResponse()};
  Dispatcher dispatcher_{Options(), Clients(group_), clock_};
};

TEST_F(DispatcherTest, TellsTheTimeBeforeARequestIsSubmitted) {
  const RequestKey key = dispatcher_.NewKey();
  dispatcher_.Add(key, CountTicks());
  EXPECT_TRUE(ticks_.Pop().has_value());
  EXPECT_TRUE(ticks_.Pop().has_value());
  dispatcher_.Remove(key);
}

// What a handler holds was once copied for every request ten times a second.
TEST_F(DispatcherTest, ATickCopiesNoHandler) {
  std::atomic<int> num_copies = 0;
  Dispatcher::Handler handler = CountTicks();
  handler.on_failure = [held = Held(num_copies)](const Refusal&) {};
  const int before = num_copies;
  const RequestKey key = dispatcher_.NewKey();
  dispatcher_.Add(key, std::move(handler));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ticks_.Pop().has_value());
  EXPECT_EQ(num_copies, before);
  dispatcher_.Remove(key);
}

}  // namespace
}  // namespace lapidary
