#include "router/core/admission.h"

#include <vector>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

class AdmissionTest : public ::testing::Test {
 protected:
  AdmissionTest() {
    Group group;
    group.address = "a:1";
    group.state = GroupState::kReady;
    group.description.emplace();
    group.description->max_context_tokens = 100000;
    group.load.prefill_tokens_per_second = 1000;
    groups_.push_back(group);
  }

  std::optional<Refusal> AdmitPrompt(
      int64_t tokens, absl::Time deadline = absl::InfiniteFuture()) {
    return Admit(options_, backlog_, groups_, tokens, tokens + 1, deadline,
                 absl::UnixEpoch());
  }

  AdmissionOptions options_ = {.max_queued_tokens = 10000};
  Backlog backlog_;
  std::vector<Group> groups_;
};

TEST_F(AdmissionTest, LetsInWhatFits) {
  EXPECT_EQ(AdmitPrompt(100), std::nullopt);
}

TEST_F(AdmissionTest, CountsTokensThatWaitHereAndInTheGroups) {
  backlog_.waiting_tokens = 6000;
  groups_[0].load.queued_tokens = 3000;
  EXPECT_EQ(AdmitPrompt(1000), std::nullopt);
  const std::optional<Refusal> refusal = AdmitPrompt(3500);
  ASSERT_NE(refusal, std::nullopt);
  EXPECT_THAT(refusal->status, StatusIs(absl::StatusCode::kResourceExhausted,
                                        HasSubstr("9000 of 10000")));
  EXPECT_EQ(refusal->retry_after, absl::Seconds(3));  // 2500 tokens too many.
}

TEST_F(AdmissionTest, LetsAnythingIntoAnEmptyQueue) {
  EXPECT_EQ(AdmitPrompt(50000), std::nullopt);
}

TEST_F(AdmissionTest, BoundsTheRequestsThatWait) {
  options_.max_waiting_requests = 2;
  backlog_.waiting_requests = 2;
  EXPECT_EQ(AdmitPrompt(1)->cause, RefusalCause::kQueueFull);
}

TEST_F(AdmissionTest, NothingIsTooLongWhileAGroupIsUnknown) {
  EXPECT_EQ(AdmitPrompt(200000)->cause, RefusalCause::kTooLong);
  groups_.emplace_back();
  EXPECT_EQ(AdmitPrompt(200000), std::nullopt);
  groups_.back().state = GroupState::kRefused;
  EXPECT_EQ(AdmitPrompt(200000)->cause, RefusalCause::kTooLong);
}

TEST_F(AdmissionTest, RefusesWhatCannotStartInTime) {
  groups_[0].load.queued_tokens = 5000;
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(AdmitPrompt(10, now + absl::Seconds(6)), std::nullopt);
  EXPECT_EQ(AdmitPrompt(10, now + absl::Seconds(4))->cause,
            RefusalCause::kDeadline);
}

TEST_F(AdmissionTest, SaysWhatIsTheMatterWithEachGroup) {
  groups_[0].state = GroupState::kRefused;
  groups_[0].reason = "config digest x";
  EXPECT_THAT(NoGroupRefusal(groups_, absl::Seconds(10)).status,
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("a:1 is refused (config digest x)")));
}

}  // namespace
}  // namespace lapidary
