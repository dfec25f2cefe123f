#include "common/grpc_status.h"

#include <string>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "third_party/google/rpc/error_details.pb.h"
#include "third_party/google/rpc/status.pb.h"

namespace lapidary {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

absl::Status ThereAndBack(const absl::Status& status) {
  return FromGrpcStatus(ToGrpcStatus(status));
}

TEST(GrpcStatusTest, KeepsCodeAndMessage) {
  EXPECT_OK(ThereAndBack(absl::OkStatus()));
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(ThereAndBack(status), status);
  }
}

TEST(GrpcStatusTest, CarriesTheRetryDelay) {
  absl::Status status = absl::UnavailableError("no group is ready");
  EXPECT_EQ(GetRetryDelay(status), std::nullopt);
  SetRetryDelay(absl::Milliseconds(2500), status);
  EXPECT_EQ(GetRetryDelay(ThereAndBack(status)), absl::Milliseconds(2500));
}

TEST(GrpcStatusTest, CarriesTheRequestId) {
  absl::Status status = absl::InternalError("bug");
  SetRequestId("r-1", status);
  EXPECT_EQ(GetRequestId(ThereAndBack(status)), "r-1");
}

TEST(GrpcStatusTest, CarriesFieldViolations) {
  const absl::Status status = ThereAndBack(
      BadRequestError({{"sampling.top_p", "expected (0, 1], was 2"},
                       {"stop", "expected at most 64, were 65"}}));
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "sampling.top_p: expected (0, 1], was 2 (and 1 more)"));
  const std::vector<FieldViolation> violations = GetFieldViolations(status);
  ASSERT_THAT(violations, SizeIs(2));
  EXPECT_EQ(violations[1].field, "stop");
  EXPECT_EQ(violations[1].description, "expected at most 64, were 65");
}

TEST(GrpcStatusTest, DetailsReadAsGoogleRpcStatus) {
  const grpc::Status status = ToGrpcStatus(BadRequestError({{"a", "b"}}));
  google::rpc::Status proto;
  ASSERT_TRUE(proto.ParseFromString(status.error_details()));
  EXPECT_EQ(proto.code(), 3);
  ASSERT_EQ(proto.details_size(), 1);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(proto.details(0).UnpackTo(&bad_request));
  EXPECT_EQ(bad_request.field_violations(0).field(), "a");
}

TEST(GrpcStatusTest, StaysWithinTheBytesThatReceiversAccept) {
  std::vector<FieldViolation> violations(100000,
                                         {"field", std::string(10000, 'x')});
  const grpc::Status status = ToGrpcStatus(BadRequestError(violations));
  EXPECT_LE(status.error_message().size(), 2000u);
  EXPECT_LE(status.error_details().size(), 3200u);
  EXPECT_THAT(GetFieldViolations(FromGrpcStatus(status)),
              ::testing::Not(IsEmpty()));
}

TEST(GrpcStatusTest, DoesNotCutACharacter) {
  std::string message = "x";
  while (message.size() < 4000) message += "\u00e9";
  const std::string cut =
      ToGrpcStatus(absl::InternalError(message)).error_message();
  EXPECT_THAT(cut, EndsWith("\u00e9..."));
}

TEST(GrpcStatusTest, IgnoresDetailsThatDoNotParse) {
  const absl::Status status = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::INTERNAL, "bug", "\xff\xff\xff"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, HasSubstr("bug")));
  EXPECT_THAT(GetFieldViolations(status), IsEmpty());
}

}  // namespace
}  // namespace lapidary
