#include "worker/engine/active_request.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using Finish = Scheduler::Finish;

const absl::Time kStart = absl::UnixEpoch();

absl::Time After(int seconds) { return kStart + absl::Seconds(seconds); }

class ActiveRequestTest : public ::testing::Test {
 protected:
  ActiveRequestTest() : metrics_(registry_) {}

  static EngineRequest Request() {
    EngineRequest request;
    request.prompt = {3, 5, 5};
    request.max_tokens = 10;
    request.stop_tokens = {7};
    return request;
  }

  std::unique_ptr<ActiveRequest> Arrive(EngineRequest request) {
    return std::make_unique<ActiveRequest>(1, std::move(request), outbox_,
                                           kStart);
  }

  Metrics registry_;
  WorkerMetrics metrics_;
  std::shared_ptr<Outbox> outbox_ = std::make_shared<Outbox>(10, [] {});
};

TEST_F(ActiveRequestTest, TellsItsTimes) {
  const auto request = Arrive(Request());
  request->Admit(After(1), metrics_);
  request->AddToken({8, 0, {}}, After(5), metrics_);
  request->AddToken({9, 0, {}}, After(7), metrics_);
  request->Preempt(metrics_);
  request->Finish(absl::OkStatus(), Finish::kLength, After(20), metrics_);

  const Outbox::Finished finished = *outbox_->Take(10).finished;
  EXPECT_OK(finished.status);
  EXPECT_EQ(finished.queued, absl::Seconds(1));
  EXPECT_EQ(finished.prefill, absl::Seconds(4));
  EXPECT_EQ(finished.decode, absl::Seconds(2));
  EXPECT_EQ(finished.preemptions, 1);
}

TEST_F(ActiveRequestTest, HasOnlyQueuedIfItEndsBeforeItsFirstStep) {
  const auto request = Arrive(Request());
  request->Finish(absl::CancelledError(""), Finish::kStop, After(3), metrics_);
  const Outbox::Finished finished = *outbox_->Take(10).finished;
  EXPECT_EQ(finished.queued, absl::Seconds(3));
  EXPECT_EQ(finished.prefill, absl::ZeroDuration());
  EXPECT_EQ(finished.decode, absl::ZeroDuration());
  EXPECT_EQ(metrics_.finished_cancelled.Value(), 1);
}

TEST_F(ActiveRequestTest, KnowsItsStopTokens) {
  const auto request = Arrive(Request());
  EXPECT_TRUE(request->IsStop(7));
  EXPECT_FALSE(request->IsStop(3));
}

TEST_F(ActiveRequestTest, KeepsNoHistoryWithoutPenalties) {
  const auto request = Arrive(Request());
  request->AddToken({8, 0, {}}, After(1), metrics_);
  EXPECT_TRUE(request->history().counts().empty());
}

TEST_F(ActiveRequestTest, CountsResumedTokensAsOutput) {
  EngineRequest resumed = Request();
  resumed.sampling.frequency_penalty = 1;
  resumed.resumed_output_tokens = 2;
  const auto request = Arrive(std::move(resumed));
  request->AddToken({5, 0, {}}, After(1), metrics_);
  EXPECT_TRUE(request->history().counts().at(3).in_prompt);
  EXPECT_EQ(request->history().counts().at(3).in_output, 0);
  EXPECT_EQ(request->history().counts().at(5).in_output, 3);
}

}  // namespace
}  // namespace lapidary
