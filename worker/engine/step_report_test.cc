#include "worker/engine/step_report.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr StepReport kReport = {.step = 7,
                                .compute = absl::Milliseconds(12),
                                .transfer = absl::Microseconds(3),
                                .received_bytes = int64_t{5} << 33,
                                .sent_bytes = 4};

TEST(StepReportTest, ComesBackAsItWas) {
  EXPECT_THAT(DecodeStepReport(EncodeStepReport(kReport), 7),
              IsOkAndHolds(kReport));
}

TEST(StepReportTest, GarbageIsNamed) {
  StepReportBytes bytes = EncodeStepReport(kReport);
  bytes[3] ^= 1;
  EXPECT_THAT(DecodeStepReport(bytes, 7),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no step report")));
}

TEST(StepReportTest, AReportOfAnotherStepIsNamed) {
  EXPECT_THAT(DecodeStepReport(EncodeStepReport(kReport), 8),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("of step 8, got one of 7")));
}

TEST(StepReportTest, NegativeNumbersAreRefused) {
  StepReport report = kReport;
  report.sent_bytes = -1;
  EXPECT_THAT(DecodeStepReport(EncodeStepReport(report), 7),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is -1")));
}

}  // namespace
}  // namespace lapidary
