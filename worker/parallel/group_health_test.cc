#include "worker/parallel/group_health.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr RankProgress kIdle = {};

std::vector<Hello> Hellos(int num_ranks) {
  std::vector<Hello> hellos;
  for (int rank = 0; rank < num_ranks; ++rank) {
    hellos.push_back({.rank = rank,
                      .num_ranks = num_ranks,
                      .host = std::string(1, 'a' + rank),
                      .facts = {}});
  }
  return hellos;
}

// As `rank` of three sees it; time is in seconds from 0.
class Story {
 public:
  explicit Story(int rank) : health_(rank, Hellos(3), {}, At(0)) {}

  static absl::Time At(double seconds) {
    return absl::UnixEpoch() + absl::Seconds(seconds);
  }

  // All ranks beat, but for those of `silent`.
  void Beat(double seconds, const std::vector<int>& silent = {}) {
    for (int rank = 0; rank < 3; ++rank) {
      if (std::find(silent.begin(), silent.end(), rank) != silent.end()) {
        continue;
      }
      health_.OnHeartbeat(rank, progress_[rank], At(seconds));
    }
  }

  std::string FailureAt(double seconds) {
    const auto failure = health_.Decide(At(seconds));
    return failure.has_value()
               ? absl::StrCat(NameOf(failure->cause), ": ", failure->message)
               : "";
  }

  GroupHealth health_;
  std::vector<RankProgress> progress_ = {kIdle, kIdle, kIdle};
};

TEST(GroupHealthTest, WaitsForEverWhereAllBeat) {
  Story leader(0);
  for (int second = 0; second < 10000; ++second) {
    leader.Beat(second);
    ASSERT_EQ(leader.FailureAt(second + 0.9), "");
  }
}

TEST(GroupHealthTest, NamesARankThatFallsSilent) {
  Story leader(0);
  leader.progress_[2] = {.step = 17, .layer = 3};
  leader.Beat(1);
  for (int second = 2; second < 6; ++second) leader.Beat(second, {2});
  EXPECT_EQ(leader.FailureAt(5.9), "");
  EXPECT_EQ(leader.FailureAt(6.0),
            "silent: rank 2 (host c): no heartbeat for 5.0 s (at step 17, "
            "layer 3)");
}

TEST(GroupHealthTest, NamesTheRankThatWasSilentFirst) {
  Story leader(0);
  leader.Beat(1);
  leader.Beat(2, {2});
  EXPECT_THAT(leader.FailureAt(9), HasSubstr("rank 2 (host c)"));
}

TEST(GroupHealthTest, KeepsTheFirstCause) {
  Story leader(0);
  leader.health_.OnClosed(1, "its connection closed");
  const std::string first =
      "disconnected: rank 1 (host b): its connection closed (idle)";
  EXPECT_EQ(leader.FailureAt(0), first);
  leader.health_.OnMalformed(2, "garbage");
  EXPECT_EQ(leader.FailureAt(100), first);
}

TEST(GroupHealthTest, NamesARankThatSendsGarbage) {
  Story leader(0);
  leader.health_.OnMalformed(2, "needs a frame, got \"GET\"");
  EXPECT_EQ(leader.FailureAt(0),
            "malformed: rank 2 (host c): needs a frame, got \"GET\" (idle)");
}

TEST(GroupHealthTest, DoesNotMissARankThatLeft) {
  Story leader(0);
  leader.health_.OnLeave(1);
  leader.health_.OnClosed(1, "its connection closed");
  for (int second = 1; second < 20; ++second) leader.Beat(second, {1});
  EXPECT_EQ(leader.FailureAt(19.5), "");
}

TEST(GroupHealthTest, AnotherRankWatchesTheLeaderAlone) {
  Story follower(1);
  for (int second = 1; second < 20; ++second) follower.Beat(second, {2});
  EXPECT_EQ(follower.FailureAt(20), "");
  EXPECT_EQ(follower.FailureAt(24),
            "silent: rank 0 (host a): no heartbeat for 5.0 s (idle)");
}

TEST(GroupHealthTest, AnotherRankSaysWhatTheLeaderAnnounces) {
  Story follower(1);
  follower.health_.OnAnnouncement(
      {.cause = FailureCause::kSilent, .message = "rank 2 (host c): so it is"});
  follower.health_.OnClosed(0, "its connection closed");
  EXPECT_EQ(follower.FailureAt(0), "silent: rank 2 (host c): so it is");
}

TEST(GroupHealthTest, GivesABetterExplanationOfAnErrorTimeToCome) {
  Story leader(0);
  leader.health_.OnReport(1, "rank 2: connection reset", Story::At(3));
  EXPECT_EQ(leader.FailureAt(3.9), "");
  leader.health_.OnClosed(2, "its connection closed");
  EXPECT_THAT(leader.FailureAt(3.95), HasSubstr("disconnected: rank 2"));
}

TEST(GroupHealthTest, BelievesAnErrorThatNothingExplains) {
  Story leader(0);
  leader.progress_[1] = {.step = 4, .layer = 2};
  leader.Beat(2);
  leader.health_.OnReport(1, "out of memory", Story::At(3));
  leader.health_.OnReport(2, "rank 1: closed", Story::At(3.1));
  EXPECT_EQ(leader.FailureAt(4),
            "reported: rank 1 (host b): out of memory (at step 4, layer 2)");
}

TEST(GroupHealthTest, AnotherRankGivesTheLeaderTimeToJudgeItsError) {
  Story follower(1);
  follower.Beat(2);
  follower.health_.OnReport(1, "out of memory", Story::At(3));
  EXPECT_EQ(follower.FailureAt(4.9), "");
  EXPECT_THAT(follower.FailureAt(5), HasSubstr("reported: rank 1"));
}

TEST(GroupHealthTest, EndsAStepThatTakesTooLongAndNamesTheSlowest) {
  Story leader(0);
  leader.health_.OnStepBegin(17, absl::Seconds(8), Story::At(0));
  leader.progress_ = {{.step = 17, .layer = 5},
                      {.step = 17, .layer = 5},
                      {.step = 17, .layer = 4}};
  for (int second = 1; second < 10; ++second) {
    leader.Beat(second);
    ASSERT_EQ(leader.FailureAt(second), "");
  }
  leader.Beat(9.1);
  EXPECT_EQ(leader.FailureAt(9.1),
            "overdue: rank 2 (host c): step 17 takes longer than 8.0 s (at "
            "step 17, layer 4)");
}

TEST(GroupHealthTest, NamesARankThatHasNotBegunTheStep) {
  Story leader(0);
  leader.health_.OnStepBegin(17, absl::Seconds(5), Story::At(0));
  leader.progress_[0] = {.step = 17, .layer = 0};
  leader.progress_[2] = {.step = 17, .layer = 0};
  for (int second = 1; second < 7; ++second) leader.Beat(second);
  EXPECT_THAT(leader.FailureAt(6.5), HasSubstr("rank 1 (host b)"));
}

// The others' exchanges fail at the limit, and then they are idle: they were
// named for the leader, which was stuck.
TEST(GroupHealthTest, NamesNoRankThatGaveUpToWaitForAnother) {
  Story leader(0);
  leader.health_.OnStepBegin(17, absl::Seconds(5), Story::At(0));
  leader.progress_ = {{.step = 17, .layer = 5},
                      {.step = 17, .layer = 5},
                      {.step = 17, .layer = 5}};
  for (int second = 1; second < 6; ++second) leader.Beat(second);
  leader.progress_[1] = leader.progress_[2] = {};
  leader.Beat(6);
  EXPECT_THAT(leader.FailureAt(6.1), HasSubstr("rank 0 (host a)"));
}

TEST(GroupHealthTest, ForgetsAStepThatHasEnded) {
  Story leader(0);
  leader.health_.OnStepBegin(17, absl::Seconds(5), Story::At(0));
  leader.health_.OnStepEnd();
  for (int second = 1; second < 30; ++second) leader.Beat(second);
  EXPECT_EQ(leader.FailureAt(30), "");
}

}  // namespace
}  // namespace lapidary
