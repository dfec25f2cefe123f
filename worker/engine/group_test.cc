#include "worker/engine/group.h"

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/status_macros.h"
#include "common/testing/fake_clock.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/local_collective.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int kVocab = 100;
constexpr PlanLimits kLimits = {.num_ranks = 2,
                                .vocab_size = kVocab,
                                .global_pages = 1024,
                                .window_pages = 1024,
                                .max_step_tokens = 65536};

// The first step of a sequence of `num_tokens`.
StepPlan Plan(int64_t step, int num_tokens) {
  StepPlan plan;
  plan.step = step;
  const int pages = NumPages(num_tokens);
  plan.sequences = {{.sequence = 1,
                     .num_tokens = num_tokens,
                     .num_global_pages = pages,
                     .num_window_pages = pages}};
  plan.tokens.assign(num_tokens, 7);
  for (int page = 0; page < pages; ++page) {
    plan.global_pages.push_back(page / kLimits.num_ranks);
    plan.window_pages.push_back(page);
  }
  plan.logit_rows = {num_tokens - 1};
  return plan;
}

// One rank's parts, with a model that remembers its plans.
struct Rank {
  explicit Rank(Collective& collective) : collective_(collective) {}

  RankParts parts() {
    return {
        .collective = collective_,
        .forward = [this](const StepPlan& plan) -> absl::StatusOr<Tensor> {
          steps_seen.push_back(progress.step);
          plans.push_back(plan);
          clock.Advance(clock_jump);
          if (!error.ok()) return error;
          return Tensor{logits, DType::kF32, 1, 4, 4};
        },
        .progress = progress,
        .clock = clock,
        .on_step_begin =
            [this](int64_t, absl::Duration limit) { limits.push_back(limit); },
        .on_step_end = [this] { ++steps_ended; }};
  }

  Collective& collective_;
  FakeClock clock;
  absl::Duration clock_jump;  // In each step.
  StepProgress progress;
  std::vector<StepPlan> plans;
  std::vector<int64_t> steps_seen;
  std::vector<absl::Duration> limits;
  int steps_ended = 0;
  absl::Status error;
  float logits[4] = {};
};

class GroupTest : public ::testing::Test {
 protected:
  ~GroupTest() override { Join().IgnoreError(); }

  // Runs rank 1.
  void StartFollower() {
    StartRankOne([this] {
      return Follow(follower_.parts(), kLimits,
                    [this](const StepPlan&, const StepReport& report) {
                      reports_.push_back(report);
                    });
    });
  }

  // Runs something else in its place.
  void StartRankOne(std::function<absl::Status()> rank) {
    thread_ = std::thread([this, rank = std::move(rank)] {
      followed_ = rank();
      if (!followed_.ok()) ranks_.Abandon();
    });
  }

  absl::Status Join() {
    if (thread_.joinable()) thread_.join();
    return followed_;
  }

  LocalGroup ranks_{2};
  Rank leader_rank_{ranks_.rank(0)};
  Rank follower_{ranks_.rank(1)};
  GroupLeader leader_{leader_rank_.parts()};
  std::vector<StepReport> reports_;
  absl::Status followed_;
  std::atomic<bool> leader_gone_ = false;
  std::thread thread_;
};

TEST_F(GroupTest, RunsTheSamePlansOnAllRanks) {
  StartFollower();
  ASSERT_OK(leader_.Run(Plan(1, 3)).status());
  ASSERT_OK(leader_.Run(Plan(2, 1)).status());
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
  EXPECT_THAT(follower_.plans, ElementsAre(Plan(1, 3), Plan(2, 1)));
  EXPECT_EQ(leader_rank_.plans, follower_.plans);
}

TEST_F(GroupTest, APlanOfManyTokensTakesTwoMessages) {
  StartFollower();
  ASSERT_OK(leader_.Run(Plan(1, 50'000)).status());
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
  EXPECT_THAT(follower_.plans, ElementsAre(Plan(1, 50'000)));
}

TEST_F(GroupTest, TellsWhichStepRuns) {
  StartFollower();
  ASSERT_OK(leader_.Run(Plan(17, 1)).status());
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
  EXPECT_THAT(follower_.steps_seen, ElementsAre(17));
  EXPECT_EQ(follower_.progress.step, StepProgress::kIdle);
}

TEST_F(GroupTest, TellsWhatAStepMayTake) {
  StartFollower();
  StepPlan plan = Plan(1, 1);
  plan.planned_time = absl::Seconds(3);
  ASSERT_OK(leader_.Run(plan).status());
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
  EXPECT_THAT(leader_rank_.limits, ElementsAre(absl::Seconds(12)));
  EXPECT_THAT(follower_.limits, ElementsAre(absl::Seconds(12)));
  EXPECT_EQ(leader_rank_.steps_ended, 1);
}

// Deadlines were of the clock that one sets.
TEST_F(GroupTest, AClockThatIsSetEndsNoStep) {
  leader_rank_.clock_jump = absl::Hours(1);
  follower_.clock_jump = -absl::Hours(1);
  StartFollower();
  ASSERT_OK(leader_.Run(Plan(1, 1)).status());
  ASSERT_OK(leader_.Run(Plan(2, 1)).status());
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
}

TEST_F(GroupTest, GivesTheLeaderAReportOfEachRank) {
  StartFollower();
  const absl::StatusOr<StepResult> result = leader_.Run(Plan(3, 1));
  ASSERT_OK(result.status());
  ASSERT_THAT(result->reports, SizeIs(2));
  ASSERT_OK(leader_.Stop());
  EXPECT_OK(Join());
  EXPECT_THAT(reports_, ElementsAre(result->reports[1]));
  EXPECT_EQ(result->reports[1].step, 3);
  EXPECT_EQ(result->reports[1].received_bytes, 0) << "the plan is not counted";
}

// A rank that had been told to stop was gone, and was missed by another that
// had not.
TEST_F(GroupTest, NoRankGoesBeforeAllAreToldToStop) {
  StartRankOne([this] {
    std::vector<float> frame(4096 / sizeof(float));
    const int size = static_cast<int>(frame.size());
    RETURN_IF_ERROR(
        Broadcast(ranks_.rank(1), Traffic::kControl, 0,
                  Tensor{frame.data(), DType::kF32, 1, size, size}));
    EXPECT_FALSE(leader_gone_);
    float stopping[2] = {};
    const Tensor all = {stopping, DType::kF32, 2, 1, 1};
    return AllGather(ranks_.rank(1), Traffic::kControl, all.Rows(1, 1), all);
  });
  ASSERT_OK(leader_.Stop());
  leader_gone_ = true;
  EXPECT_OK(Join());
}

TEST_F(GroupTest, AFollowersErrorEndsTheGroup) {
  follower_.error = absl::ResourceExhaustedError("no memory");
  StartFollower();
  EXPECT_THAT(leader_.Run(Plan(1, 1)).status(),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Join(), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_OK(leader_.Stop()) << "nobody is left to be told";
}

TEST_F(GroupTest, TheLeadersErrorIsItsOwn) {
  leader_rank_.error = absl::InternalError("broken");
  StartFollower();
  EXPECT_THAT(leader_.Run(Plan(1, 1)).status(),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("broken")));
  ranks_.Abandon();
  EXPECT_THAT(Join(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(GroupTest, ARankThatReportsGarbageIsNamed) {
  StartRankOne([this] {
    std::vector<float> frame(4096 / sizeof(float));
    const int size = static_cast<int>(frame.size());
    RETURN_IF_ERROR(
        Broadcast(ranks_.rank(1), Traffic::kControl, 0,
                  Tensor{frame.data(), DType::kF32, 1, size, size}));
    float garbage[kStepReportBytes / sizeof(float)] = {1, 2, 3};
    constexpr int kSize = kStepReportBytes / sizeof(float);
    return Gather(ranks_.rank(1), Traffic::kControl, 0,
                  Tensor{garbage, DType::kF32, 1, kSize, kSize}, Tensor());
  });
  EXPECT_THAT(leader_.Run(Plan(1, 1)).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("rank 1: what it sent is no step report")));
}

TEST_F(GroupTest, AFrameOfGarbageEndsTheFollower) {
  StartFollower();
  std::vector<float> garbage(4096 / sizeof(float), 1.0f);
  const int size = static_cast<int>(garbage.size());
  ASSERT_OK(Broadcast(ranks_.rank(0), Traffic::kControl, 0,
                      Tensor{garbage.data(), DType::kF32, 1, size, size}));
  EXPECT_THAT(Join(), StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("rank 0: what it sent is no frame")));
}

TEST_F(GroupTest, APlanBeyondTheLimitsEndsTheFollower) {
  StartFollower();
  StepPlan plan = Plan(1, 1);
  plan.tokens = {kVocab};
  EXPECT_THAT(leader_.Run(plan).status(),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Join(), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(GroupOfOneTest, RunsAloneAndMovesNothing) {
  LocalGroup alone(1);
  Rank rank(alone.rank(0));
  GroupLeader leader(rank.parts());
  const absl::StatusOr<StepResult> result = leader.Run(Plan(1, 1));
  ASSERT_OK(result.status());
  EXPECT_THAT(result->reports, SizeIs(1));
  EXPECT_EQ(result->logits.data, rank.logits);
  EXPECT_OK(leader.Stop());
  EXPECT_EQ(alone.rank(0).counters().Total().calls, 0);
}

TEST(StepTimeLimitTest, AllowsAMultipleOfThePlanAndAtLeastSeconds) {
  EXPECT_EQ(StepTimeLimit(absl::ZeroDuration()), absl::Seconds(5));
  EXPECT_EQ(StepTimeLimit(absl::Seconds(1)), absl::Seconds(5));
  EXPECT_EQ(StepTimeLimit(absl::Seconds(2)), absl::Seconds(8));
}

}  // namespace
}  // namespace lapidary
