#include "worker/schedule/replica.h"

#include "common/tokens.h"
#include "gtest/gtest.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

TEST(ReplicaTest, IsForAnyPromptThatFits) {
  const Replica replica(10);
  EXPECT_EQ(replica.TokensFor(1, 10 * kPageTokens), 0);
  EXPECT_EQ(replica.TokensFor(1, 10 * kPageTokens + 1), kNoReplica);
}

TEST(ReplicaTest, IsForOneSequenceAtATime) {
  Replica replica(10);
  replica.Take(1);
  EXPECT_EQ(replica.TokensFor(1, 600), 0);
  EXPECT_EQ(replica.TokensFor(2, 100), kNoReplica);
}

TEST(ReplicaTest, KnowsWhatItHolds) {
  Replica replica(10);
  replica.Take(1);
  replica.Hold(1, 256);
  EXPECT_EQ(replica.TokensFor(1, 600), 256);
}

TEST(ReplicaTest, IsEmptyForTheNextOne) {
  Replica replica(10);
  replica.Take(1);
  replica.Hold(1, 256);
  replica.Release(1);
  EXPECT_EQ(replica.TokensFor(2, 600), 0);
}

TEST(ReplicaTest, StaysWithItsOwnerWhenOthersLeave) {
  Replica replica(10);
  replica.Take(1);
  replica.Release(2);
  EXPECT_EQ(replica.TokensFor(2, 600), kNoReplica);
}

TEST(ReplicaTest, IsForNobodyWithoutPages) {
  EXPECT_EQ(Replica(0).TokensFor(1, 1), kNoReplica);
}

}  // namespace
}  // namespace lapidary
