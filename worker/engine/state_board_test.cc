#include "worker/engine/state_board.h"

#include "gtest/gtest.h"

namespace lapidary {
namespace {

class StateBoardTest : public ::testing::Test {
 protected:
  StateBoardTest() {
    board_.AddListener([this] { ++num_calls_; });
  }

  StateBoard board_;
  int num_calls_ = 0;
};

TEST_F(StateBoardTest, CallsListenersWhenRequestsCome) {
  board_.Publish({.load = {.running = 1}});
  EXPECT_EQ(num_calls_, 1);
  EXPECT_EQ(board_.state().load.running, 1);
}

TEST_F(StateBoardTest, OnlyStoresWhatChangesAtEveryStep) {
  board_.Publish({.load = {.unprefilled_tokens = 7}});
  EXPECT_EQ(num_calls_, 0);
  EXPECT_EQ(board_.state().load.unprefilled_tokens, 7);
}

TEST_F(StateBoardTest, RemembersThatItDrains) {
  board_.PublishDraining();
  board_.PublishDraining();
  EXPECT_EQ(num_calls_, 1);
  board_.Publish({});
  EXPECT_TRUE(board_.state().draining);
}

TEST_F(StateBoardTest, KeepsTheFirstFailure) {
  board_.PublishFailure("rank 1: gone", "closed");
  board_.PublishFailure("rank 0: gone", "silent");
  board_.Publish({});
  EXPECT_EQ(num_calls_, 1);
  EXPECT_TRUE(board_.state().stopped);
  EXPECT_EQ(board_.state().failure, "rank 1: gone");
  EXPECT_EQ(board_.state().failure_cause, "closed");
}

TEST_F(StateBoardTest, AnOrderlyEndIsNoFailure) {
  board_.Publish({.stopped = true});
  board_.PublishFailure("rank 1: gone", "closed");
  EXPECT_EQ(board_.state().failure, "");
}

TEST_F(StateBoardTest, ForgetsARemovedListener) {
  int calls = 0;
  const StateBoard::ListenerId id = board_.AddListener([&calls] { ++calls; });
  board_.RemoveListener(id);
  board_.PublishDraining();
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace lapidary
