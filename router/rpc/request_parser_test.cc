#include "router/rpc/request_parser.h"

#include <string>
#include <vector>

#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

grpc::ByteBuffer Bytes(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// The field that is not UTF-8.
std::string BadField(const v1::GenerateRequest& request) {
  v1::GenerateRequest parsed;
  const auto violations = GetFieldViolations(
      ParseRequest(Bytes(request.SerializeAsString()), parsed));
  return violations.empty() ? "" : violations[0].field;
}

TEST(RequestParserTest, ReadsWhatWasWritten) {
  v1::GenerateRequest request;
  request.mutable_text()->set_text(std::string(1 << 20, 'x'));
  v1::GenerateRequest parsed;
  EXPECT_OK(ParseRequest(SerializeMessage(request), parsed));
  EXPECT_EQ(parsed.text().text(), request.text().text());
}

TEST(RequestParserTest, NamesTheFieldThatIsNotUtf8) {
  v1::GenerateRequest request;
  request.add_stop("fine");
  request.add_stop("\xff");
  EXPECT_EQ(BadField(request), "stop[1]");
  request.mutable_stop()->RemoveLast();
  auto& conversation = *request.mutable_conversation();
  conversation.add_messages()->add_content()->set_text("ok");
  conversation.add_messages()->add_tool_calls()->set_arguments_json("\xc3(");
  EXPECT_EQ(BadField(request),
            "conversation.messages[1].tool_calls[0].arguments_json");
}

TEST(RequestParserTest, TellsTheByte) {
  v1::GenerateRequest request;
  request.mutable_text()->set_text("abc\xff");
  v1::GenerateRequest parsed;
  EXPECT_THAT(ParseRequest(Bytes(request.SerializeAsString()), parsed),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3")));
}

TEST(RequestParserTest, RefusesBytesThatAreNoMessage) {
  v1::GenerateRequest parsed;
  EXPECT_THAT(ParseRequest(Bytes("\x0a\xff\xff"), parsed),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("lapidary.v1.GenerateRequest")));
}

}  // namespace
}  // namespace lapidary
