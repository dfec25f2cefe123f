#include "router/core/placement.h"

#include <vector>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

Group ReadyGroup(GroupId id, double rate, int64_t queued_tokens) {
  Group group;
  group.id = id;
  group.state = GroupState::kReady;
  group.description.emplace();
  group.description->max_context_tokens = 8192;
  group.load.prefill_tokens_per_second = rate;
  group.load.queued_tokens = queued_tokens;
  return group;
}

TEST(PlacementTest, PredictsQueueAndPrefill) {
  const Placement placement = Predict(ReadyGroup(0, 500, 1000), 250);
  EXPECT_DOUBLE_EQ(placement.queue_seconds, 2);
  EXPECT_DOUBLE_EQ(placement.prefill_seconds, 0.5);
}

TEST(PlacementTest, TakesTheLeastSeconds) {
  const std::vector<Group> groups = {ReadyGroup(0, 100, 0),
                                     ReadyGroup(1, 1000, 500)};
  EXPECT_EQ(Place(groups, 1000, 1001)->group, 1);  // 1.5 s against 10 s.
  EXPECT_EQ(Place(groups, 10, 11)->group, 0);      // 0.1 s against 0.51 s.
}

TEST(PlacementTest, BreaksTiesByRequestsThenByOrder) {
  std::vector<Group> groups = {ReadyGroup(0, 100, 0), ReadyGroup(1, 100, 0)};
  EXPECT_EQ(Place(groups, 100, 101)->group, 0);
  groups[0].load.running_requests = 1;
  EXPECT_EQ(Place(groups, 100, 101)->group, 1);
}

TEST(PlacementTest, SkipsGroupsThatAreNotReadyOrTooSmall) {
  std::vector<Group> groups = {ReadyGroup(0, 100, 0)};
  EXPECT_EQ(Place(groups, 8000, 8193), std::nullopt);
  groups[0].state = GroupState::kDraining;
  EXPECT_EQ(Place(groups, 100, 101), std::nullopt);
}

TEST(PlacementTest, CountsWhatWasSentSinceTheLastReport) {
  Group group = ReadyGroup(0, 100, 300);
  group.unreported_tokens = 200;
  group.own_tokens = 200;
  EXPECT_EQ(group.queued_tokens(), 500);
  group.load.queued_tokens = 0;
  group.unreported_tokens = 0;
  EXPECT_EQ(group.queued_tokens(), 200);  // What the report does not know yet.
}

}  // namespace
}  // namespace lapidary
