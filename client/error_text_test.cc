#include "client/error_text.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/grpc_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ErrorTextTest, NamesCodeAndMessage) {
  EXPECT_EQ(ErrorText(absl::UnavailableError("no group is ready")),
            "UNAVAILABLE: no group is ready");
}

TEST(ErrorTextTest, NamesEveryWrongField) {
  const std::string text = ErrorText(
      BadRequestError({{"sampling.top_p", "needs (0, 1], found 2"},
                       {"stop[3]", "needs 1 to 1024 bytes, found 0"}}));
  EXPECT_THAT(text, HasSubstr("needs (0, 1], found 2"));
  EXPECT_THAT(text, HasSubstr("stop[3]: needs 1 to 1024 bytes, found 0"));
}

TEST(ErrorTextTest, SaysWhenToTryAgain) {
  absl::Status status = absl::ResourceExhaustedError("queue is full");
  SetRetryDelay(absl::Milliseconds(2500), status);
  EXPECT_EQ(ErrorText(status),
            "RESOURCE_EXHAUSTED: queue is full; try again in 2.5 s");
}

TEST(ErrorTextTest, EndsWithTheRequestId) {
  absl::Status status = absl::InternalError("lost");
  SetRequestId("5f3a", status);
  EXPECT_EQ(ErrorText(status), "INTERNAL: lost (request 5f3a)");
}

TEST(ErrorTextTest, IsOneLine) {
  EXPECT_THAT(ErrorText(absl::InternalError("a\nb\r\nc")),
              Not(HasSubstr("\n")));
}

TEST(ExplainCallTest, NamesTheRouterThatDoesNotAnswer) {
  const absl::Status status = ExplainCall(absl::UnavailableError("refused"),
                                          "host:1", absl::InfiniteDuration());
  EXPECT_EQ(status, absl::UnavailableError(
                        "router host:1: refused; --router or LAPIDARY_ROUTER "
                        "names another"));
}

TEST(ExplainCallTest, NamesTheDeadlineThatPassed) {
  const absl::Status status =
      ExplainCall(absl::DeadlineExceededError("Deadline Exceeded"), "host:1",
                  absl::Seconds(90));
  EXPECT_EQ(status, absl::DeadlineExceededError(
                        "no end within the --deadline of 1m30s"));
}

TEST(ExplainCallTest, CallsCtrlCAnInterruption) {
  EXPECT_EQ(ExplainCall(absl::CancelledError("CANCELLED"), "host:1",
                        absl::InfiniteDuration()),
            absl::CancelledError("interrupted"));
}

TEST(ExplainCallTest, KeepsWhatTheRouterSaid) {
  absl::Status status = absl::UnavailableError("no group is ready");
  SetRequestId("5f3a", status);
  EXPECT_EQ(ExplainCall(status, "host:1", absl::Seconds(1)), status);
}

TEST(ExitCodeTest, TellsWrongFromLater) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCode(absl::FailedPreconditionError("")), 2);
  EXPECT_EQ(ExitCode(absl::UnavailableError("")), 3);
  EXPECT_EQ(ExitCode(absl::ResourceExhaustedError("")), 3);
  EXPECT_EQ(ExitCode(absl::DeadlineExceededError("")), 4);
  EXPECT_EQ(ExitCode(absl::CancelledError("")), 130);
}

}  // namespace
}  // namespace lapidary
