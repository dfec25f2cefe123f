#include "router/rpc/tokenize_pool.h"

#include "common/bounded_queue.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kShort = 100;
constexpr int64_t kLong = 1 << 20;

// Holds threads of the pool until it is opened.
class Gate {
 public:
  std::function<void()> Job() {
    return [this] {
      static_cast<void>(entered_.TryPush(1));
      open_.Pop();
    };
  }
  void WaitForOne() { entered_.Pop(); }
  void Open() { open_.Close(); }

 private:
  BoundedQueue<int> entered_{100};
  BoundedQueue<int> open_{1};
};

TEST(TokenizePoolTest, RunsJobs) {
  BoundedQueue<int> results(2);
  TokenizePool pool({});
  EXPECT_OK(pool.Run(kShort, [&] { EXPECT_TRUE(results.TryPush(1)); }));
  EXPECT_OK(pool.Run(kLong, [&] { EXPECT_TRUE(results.TryPush(2)); }));
  EXPECT_EQ(*results.Pop() + *results.Pop(), 3);
}

TEST(TokenizePoolTest, LongJobsDoNotBlockShortOnes) {
  Gate gate;
  BoundedQueue<int> results(1);
  TokenizePool pool({.num_threads = 3});
  for (int i = 0; i < 10; ++i) EXPECT_OK(pool.Run(kLong, gate.Job()));
  EXPECT_OK(pool.Run(kShort, [&] { EXPECT_TRUE(results.TryPush(1)); }));
  EXPECT_EQ(results.Pop(), 1);
  gate.Open();
}

TEST(TokenizePoolTest, ShortJobsDoNotStarveLongOnes) {
  Gate gate;
  BoundedQueue<int> results(1);
  TokenizePool pool({.num_threads = 2});
  for (int i = 0; i < 2; ++i) EXPECT_OK(pool.Run(kShort, gate.Job()));
  gate.WaitForOne();
  gate.WaitForOne();
  // Came before the short ones that follow, and is run before them by the
  // thread that may.
  EXPECT_OK(pool.Run(kLong, [&] { EXPECT_TRUE(results.TryPush(1)); }));
  for (int i = 0; i < 100; ++i) EXPECT_OK(pool.Run(kShort, [] {}));
  gate.Open();
  EXPECT_EQ(results.Pop(), 1);
}

TEST(TokenizePoolTest, BoundsWhatWaits) {
  Gate gate;
  TokenizePool pool({.num_threads = 2, .max_jobs = 2, .max_bytes = 3000});
  for (int i = 0; i < 2; ++i) {
    EXPECT_OK(pool.Run(kShort, gate.Job()));
    gate.WaitForOne();
  }
  EXPECT_OK(pool.Run(2000, [] {}));
  EXPECT_THAT(pool.Run(2000, [] {}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("2000 bytes wait")));
  EXPECT_OK(pool.Run(10, [] {}));
  EXPECT_THAT(pool.Run(10, [] {}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(pool.num_waiting(), 2);
  gate.Open();
}

}  // namespace
}  // namespace lapidary
