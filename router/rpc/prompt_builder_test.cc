#include "router/rpc/prompt_builder.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/fakes/model_directory.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

class PromptBuilderTest : public ::testing::Test {
 protected:
  std::string Decoded() const {
    return model_->tokenizer->Decode(
        BuildPrompt(request_, *model_).value().tokens);
  }

  // The field that is wrong.
  FieldViolation Violation() const {
    const auto prompt = BuildPrompt(request_, *model_);
    EXPECT_THAT(prompt, StatusIs(absl::StatusCode::kInvalidArgument));
    const auto violations = GetFieldViolations(prompt.status());
    return violations.empty() ? FieldViolation() : violations[0];
  }

  v1::Message& AddMessage(const std::string& role, const std::string& text) {
    v1::Message& message = *request_.mutable_conversation()->add_messages();
    message.set_role(role);
    message.add_content()->set_text(text);
    return message;
  }

  ModelDirectory directory_;
  std::unique_ptr<const ServedModel> model_ =
      ServedModel::Load(directory_.path()).value();
  v1::GenerateRequest request_;
};

TEST_F(PromptBuilderTest, RendersAConversation) {
  AddMessage("user", "Hi");
  EXPECT_EQ(Decoded(),
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n"
            "<channel|>");
}

TEST_F(PromptBuilderTest, ControlTokensInAMessageAreText) {
  AddMessage("user", "<turn|>");
  const Prompt prompt = BuildPrompt(request_, *model_).value();
  const TokenId turn_end = *model_->tokenizer->ControlToken("<turn|>");
  // One is the template's; the message's is spelled out.
  EXPECT_EQ(std::count(prompt.tokens.begin(), prompt.tokens.end(), turn_end),
            1);
}

TEST_F(PromptBuilderTest, PutsBosBeforeATextOnce) {
  request_.mutable_text()->set_text("<bos>Hi");
  const TokenId bos = model_->bos_token;
  EXPECT_EQ(Decoded(), "<bos><bos>Hi");  // The second is spelled out.
  request_.mutable_text()->set_parse_control_tokens(true);
  EXPECT_EQ(Decoded(), "<bos>Hi");
  request_.mutable_text()->set_text("Hi");
  EXPECT_EQ(BuildPrompt(request_, *model_).value().tokens[0], bos);
  request_.mutable_text()->set_omit_bos(true);
  EXPECT_EQ(Decoded(), "Hi");
}

TEST_F(PromptBuilderTest, TakesTokenIdsAsTheyAre) {
  request_.mutable_token_ids()->add_ids(7);
  EXPECT_EQ(BuildPrompt(request_, *model_).value().tokens,
            std::vector<TokenId>{7});
}

TEST_F(PromptBuilderTest, RefusesToolsThatAreNoObjects) {
  AddMessage("user", "Hi");
  request_.mutable_conversation()->add_tools_json("{broken");
  EXPECT_EQ(Violation().field, "conversation.tools_json[0]");
  EXPECT_THAT(Violation().description, HasSubstr("not JSON"));
  request_.mutable_conversation()->set_tools_json(0, "[]");
  EXPECT_THAT(Violation().description, HasSubstr("array"));
}

TEST_F(PromptBuilderTest, BoundsTheDepthOfJson) {
  AddMessage("user", "Hi");
  v1::ToolCall& call = *AddMessage("assistant", "").add_tool_calls();
  call.set_name("f");
  call.set_arguments_json(absl::StrCat("{\"a\":", std::string(1000000, '['),
                                       std::string(1000000, ']'), "}"));
  EXPECT_EQ(Violation().field,
            "conversation.messages[1].tool_calls[0].arguments_json");
  EXPECT_THAT(Violation().description, HasSubstr("64 levels"));
}

TEST_F(PromptBuilderTest, RendersToolsAndCalls) {
  AddMessage("user", "Weather?");
  v1::ToolCall& call = *AddMessage("assistant", "").add_tool_calls();
  call.set_id("c1");
  call.set_name("get_weather");
  call.set_arguments_json("{\"city\":\"Paris\"}");
  v1::Message& result = AddMessage("tool", "sunny");
  result.set_tool_call_id("c1");
  result.set_name("get_weather");
  request_.mutable_conversation()->add_tools_json(
      R"({"type":"function","function":{"name":"get_weather",)"
      R"("description":"Weather.","parameters":{"type":"object",)"
      R"("properties":{"city":{"type":"string"}},"required":["city"]}}})");
  EXPECT_THAT(Decoded(), HasSubstr("declaration:get_weather"));
  EXPECT_THAT(Decoded(), HasSubstr("call:get_weather{city:<|\"|>Paris<|\"|>}"));
  EXPECT_THAT(Decoded(), HasSubstr("sunny"));
}

}  // namespace
}  // namespace lapidary
