#include "common/bounded_queue.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(BoundedQueueTest, KeepsTheOrder) {
  BoundedQueue<int> queue(3);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(3));
  EXPECT_THAT(queue.PopAll(), ElementsAre(2, 3));
}

TEST(BoundedQueueTest, RefusesWhatDoesNotFit) {
  BoundedQueue<int> queue(1);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_FALSE(queue.TryPush(2));
}

TEST(BoundedQueueTest, HandsOutWhatIsLeftAfterClose) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(2));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueueTest, GivesUpWaitingAfterTheTimeout) {
  BoundedQueue<int> queue(1);
  EXPECT_THAT(queue.PopAllFor(absl::Milliseconds(1)), IsEmpty());
}

TEST(BoundedQueueTest, PassesItemsBetweenThreads) {
  BoundedQueue<int> queue(4);
  std::thread producer([&queue] {
    for (int i = 0; i < 1000; ++i) {
      while (!queue.TryPush(i)) std::this_thread::yield();
    }
    queue.Close();
  });
  int expected = 0;
  while (const auto item = queue.Pop()) EXPECT_EQ(*item, expected++);
  EXPECT_EQ(expected, 1000);
  producer.join();
}

}  // namespace
}  // namespace lapidary
