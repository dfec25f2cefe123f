#include "router/rpc/response_queue.h"

#include <string>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

v1::Delta Delta(const std::string& text, uint32_t token) {
  v1::Delta delta;
  delta.set_text(text);
  delta.add_token_ids(token);
  delta.add_logprobs()->mutable_chosen()->set_token_id(token);
  return delta;
}

TEST(ResponseQueueTest, JoinsDeltas) {
  ResponseQueue queue;
  queue.AddDelta(Delta("a", 1));
  queue.AddDelta(Delta("b", 2));
  const auto response = queue.TakeNext();
  EXPECT_EQ(response->delta().text(), "ab");
  ASSERT_EQ(response->delta().token_ids_size(), 2);
  EXPECT_EQ(response->delta().token_ids(1), 2u);
  EXPECT_EQ(response->delta().logprobs(1).chosen().token_id(), 2u);
  EXPECT_TRUE(queue.empty());
}

TEST(ResponseQueueTest, KeepsTheLastProgress) {
  ResponseQueue queue;
  v1::Progress progress;
  progress.set_prefilled_tokens(1);
  queue.AddProgress(progress);
  progress.set_prefilled_tokens(2);
  queue.AddProgress(progress);
  EXPECT_EQ(queue.TakeNext()->progress().prefilled_tokens(), 2u);
  EXPECT_FALSE(queue.TakeNext().has_value());
}

TEST(ResponseQueueTest, GivesProgressThenDeltaThenCompleted) {
  ResponseQueue queue;
  queue.AddCompleted({});
  queue.AddDelta(Delta("a", 1));
  queue.AddProgress({});
  EXPECT_TRUE(queue.TakeNext()->has_progress());
  EXPECT_TRUE(queue.TakeNext()->has_delta());
  EXPECT_TRUE(queue.TakeNext()->has_completed());
  EXPECT_FALSE(queue.TakeNext().has_value());
}

TEST(ResponseQueueTest, IsFullAboveItsBoundUntilItIsTaken) {
  ResponseQueue queue;
  queue.AddDelta(Delta(std::string(ResponseQueue::kMaxBytes / 2, 'x'), 1));
  EXPECT_FALSE(queue.full());
  queue.AddDelta(Delta(std::string(ResponseQueue::kMaxBytes / 2, 'x'), 2));
  EXPECT_TRUE(queue.full());
  queue.TakeNext();
  EXPECT_FALSE(queue.full());
}

}  // namespace
}  // namespace lapidary
