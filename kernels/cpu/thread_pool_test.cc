#include "kernels/cpu/thread_pool.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::Each;

TEST(ThreadPoolTest, CallsTheBodyOnceForEachItem) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int items : {0, 1, 2, 7, 1000}) {
      std::vector<int> calls(items, 0);
      pool.ParallelFor(items, [&](int item, int) { ++calls[item]; });
      EXPECT_THAT(calls, Each(1));
    }
  }
}

TEST(ThreadPoolTest, GivesEachThreadAnIndexOfItsOwn) {
  ThreadPool pool(4);
  std::vector<int> by_thread(4, 0);  // Unguarded: a shared index would race.
  pool.ParallelFor(10000, [&](int, int thread) { ++by_thread[thread]; });
  int sum = 0;
  for (const int calls : by_thread) sum += calls;
  EXPECT_EQ(sum, 10000);
}

TEST(ThreadPoolTest, ALoopSeesWhatTheLoopBeforeItWrote) {
  ThreadPool pool(3);
  std::vector<int> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.ParallelFor(64,
                     [&](int item, int) { values[item] = values[item] + 1; });
    pool.ParallelFor(
        32, [&](int item, int) { EXPECT_EQ(values[item], values[63 - item]); });
  }
  EXPECT_THAT(values, Each(2000));
}

TEST(ThreadPoolTest, EndsWithoutEverHavingRun) {
  for (int i = 0; i < 20; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace lapidary
