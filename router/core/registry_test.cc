#include "router/core/registry.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

using Kind = Registry::Action::Kind;

class RegistryTest : public ::testing::Test {
 protected:
  // Passes `duration` and returns what is to be done.
  std::vector<Registry::Action> After(absl::Duration duration) {
    now_ += duration;
    std::vector<Registry::Action> actions;
    registry_.Tick(now_, actions);
    return actions;
  }

  void Describe(uint64_t attempt, uint64_t epoch = 0) {
    std::vector<Registry::Action> actions;
    GroupDescription description;
    description.protocol_version = 1;
    description.epoch = epoch;
    registry_.OnDescribed(0, attempt, description, now_, actions);
  }

  // The last news of the group that started as `epoch`.
  void Fail(uint64_t epoch, const std::string& failure,
            const std::string& cause, uint64_t attempt = 1) {
    GroupLoad load = LoadOf(epoch);
    load.failure = failure;
    load.failure_cause = cause;
    News(load, attempt);
  }
  void News(const GroupLoad& load, uint64_t attempt) {
    registry_.OnLoad(0, attempt, load, now_);
  }

  static GroupLoad LoadOf(uint64_t epoch) {
    GroupLoad load;
    load.epoch = epoch;
    return load;
  }

  static Registry::Options OneGroup() {
    Registry::Options options;
    options.addresses = {"a:1"};
    return options;
  }

  const Group& group() const { return registry_.groups()[0]; }

  absl::Time now_ = absl::UnixEpoch();
  Registry registry_{OneGroup(), now_};
};

TEST_F(RegistryTest, IgnoresNewsOfAnOlderAttempt) {
  ASSERT_EQ(After(absl::ZeroDuration()).at(0).attempt, 1u);
  Describe(1);
  registry_.OnLoad(0, 1, {}, now_);
  registry_.OnWatchEnded(0, 1, absl::UnavailableError("broken"), now_);
  EXPECT_EQ(group().state, GroupState::kSuspect);

  ASSERT_EQ(After(absl::Seconds(1)).at(0).attempt, 2u);
  registry_.OnLoad(0, 1, {}, now_);
  EXPECT_EQ(group().state, GroupState::kSuspect);
  Describe(2);
  registry_.OnLoad(0, 2, {}, now_);
  EXPECT_EQ(group().state, GroupState::kReady);
}

TEST_F(RegistryTest, KeepsWhyAGroupFailed) {
  After(absl::ZeroDuration());
  Describe(1);
  Fail(7, "rank 1: gone", "closed");
  registry_.OnWatchEnded(0, 1, absl::UnavailableError("stopped"), now_);
  EXPECT_EQ(group().last_failure, "rank 1: gone");
  EXPECT_EQ(group().failures.at("closed"), 1);
}

// The router came back to a group that had told it and was not yet gone, and
// counted two failures.
TEST_F(RegistryTest, CountsAFailureThatIsToldTwiceOnce) {
  After(absl::ZeroDuration());
  Describe(1);
  Fail(7, "rank 1: gone", "closed");
  registry_.OnWatchEnded(0, 1, absl::UnavailableError("stopped"), now_);
  After(absl::Seconds(1));
  Describe(2);
  Fail(7, "rank 1: gone", "closed", 2);
  EXPECT_EQ(group().failures.at("closed"), 1);
  Fail(8, "rank 1: gone", "closed", 2);
  EXPECT_EQ(group().failures.at("closed"), 2);
}

TEST_F(RegistryTest, CountsALeaderThatIsGoneWithoutAWord) {
  After(absl::ZeroDuration());
  Describe(1, /*epoch=*/7);
  News(LoadOf(7), 1);
  registry_.OnWatchEnded(0, 1, absl::UnavailableError("closed"), now_);
  After(absl::Seconds(1));
  Describe(2, /*epoch=*/8);
  EXPECT_EQ(group().failures.at("leader_lost"), 1);
  EXPECT_EQ(group().last_failure, "rank 0: it ended, and said nothing");
}

TEST_F(RegistryTest, CountsNoFailureOfAGroupThatDrained) {
  After(absl::ZeroDuration());
  Describe(1, /*epoch=*/7);
  GroupLoad load = LoadOf(7);
  load.draining = true;
  News(load, 1);
  registry_.OnWatchEnded(0, 1, absl::UnavailableError("stopped"), now_);
  After(absl::Seconds(1));
  Describe(2, /*epoch=*/8);
  EXPECT_TRUE(group().failures.empty());
}

TEST_F(RegistryTest, BoundsTheCausesThatItTellsApart) {
  After(absl::ZeroDuration());
  Describe(1);
  for (int i = 0; i < 2 * Registry::kMaxCauses; ++i) {
    Fail(i, "broken", std::to_string(i));
  }
  EXPECT_EQ(group().failures.size(), Registry::kMaxCauses + 1u);
  EXPECT_EQ(group().failures.at("other"), Registry::kMaxCauses);
}

TEST_F(RegistryTest, DoublesTheTimeBetweenAttempts) {
  std::vector<int64_t> gaps;
  absl::Time last = now_;
  for (int i = 0; i < 8; ++i) {
    std::vector<Registry::Action> actions = After(absl::ZeroDuration());
    while (actions.empty()) actions = After(absl::Milliseconds(100));
    gaps.push_back(absl::ToInt64Milliseconds(now_ - last));
    last = now_;
    registry_.OnDescribed(0, actions[0].attempt,
                          absl::UnavailableError("refused"), now_, actions);
  }
  EXPECT_EQ(gaps,
            (std::vector<int64_t>{0, 100, 200, 400, 800, 1600, 3200, 5000}));
  EXPECT_EQ(group().reason, "refused");
}

TEST_F(RegistryTest, KeepsAnAccountOfWhatItSent) {
  registry_.AddRequest(0, 1000);
  registry_.RemoveTokens(0, 400);
  EXPECT_EQ(group().queued_tokens(), 600);
  registry_.RemoveRequest(0, 600);
  EXPECT_EQ(group().queued_tokens(), 0);
  EXPECT_EQ(group().own_requests, 0);
}

TEST_F(RegistryTest, TakesUpAGroupThatWasDraining) {
  After(absl::ZeroDuration());
  Describe(1);
  GroupLoad load;
  load.draining = true;
  registry_.OnLoad(0, 1, load, now_);
  EXPECT_EQ(group().state, GroupState::kDraining);
  EXPECT_FALSE(registry_.AnyReady());
  registry_.OnLoad(0, 1, {}, now_);
  EXPECT_TRUE(registry_.AnyReady());
}

}  // namespace
}  // namespace lapidary
