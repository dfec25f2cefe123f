#include "router/rpc/request_check.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RequestCheckTest : public ::testing::Test {
 protected:
  RequestCheckTest() {
    model_.vocab_size = 1000;
    model_.max_context_tokens = 100;
    model_.stop_tokens = {1, 106};
    model_.default_sampling.set_temperature(1);
    model_.default_sampling.set_top_k(64);
    request_.mutable_text()->set_text("x");
  }

  // The fields that are wrong.
  std::vector<std::string> BadFields() const {
    std::vector<std::string> fields;
    for (const FieldViolation& violation : CheckRequest(request_, model_))
      fields.push_back(violation.field);
    return fields;
  }

  v1::Message& AddMessage(const std::string& role) {
    v1::Message& message = *request_.mutable_conversation()->add_messages();
    message.set_role(role);
    message.add_content()->set_text("x");
    return message;
  }

  ServedModel model_;
  v1::GenerateRequest request_;
};

TEST_F(RequestCheckTest, AcceptsAPlainRequest) {
  EXPECT_THAT(BadFields(), IsEmpty());
}

TEST_F(RequestCheckTest, NeedsAPrompt) {
  request_.clear_prompt();
  EXPECT_THAT(BadFields(), ElementsAre("prompt"));
  request_.mutable_text();
  EXPECT_THAT(BadFields(), ElementsAre("text.text"));
  request_.mutable_token_ids();
  EXPECT_THAT(BadFields(), ElementsAre("token_ids.ids"));
  request_.mutable_conversation();
  EXPECT_THAT(BadFields(), ElementsAre("conversation.messages"));
}

TEST_F(RequestCheckTest, ChecksTheRangeOfEachSamplingField) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  v1::Sampling& sampling = *request_.mutable_sampling();
  sampling.set_temperature(-0.1f);
  sampling.set_top_p(0);
  sampling.set_min_p(1.5f);
  sampling.set_repetition_penalty(0);
  sampling.set_presence_penalty(infinity);
  sampling.set_frequency_penalty(nan);
  sampling.set_logprobs(21);
  (*sampling.mutable_logit_bias())[5] = nan;
  EXPECT_THAT(
      BadFields(),
      ElementsAre("sampling.temperature", "sampling.top_p", "sampling.min_p",
                  "sampling.repetition_penalty", "sampling.presence_penalty",
                  "sampling.frequency_penalty", "sampling.logprobs",
                  "sampling.logit_bias[5]"));
}

TEST_F(RequestCheckTest, AcceptsTheEndsOfTheRanges) {
  v1::Sampling& sampling = *request_.mutable_sampling();
  sampling.set_temperature(0);
  sampling.set_top_p(1);
  sampling.set_min_p(0);
  sampling.set_repetition_penalty(100);
  sampling.set_presence_penalty(-100);
  sampling.set_logprobs(20);
  (*sampling.mutable_logit_bias())[999] = -100;
  request_.set_priority(-10);
  EXPECT_THAT(BadFields(), IsEmpty());
}

TEST_F(RequestCheckTest, SaysWhatWasExpectedAndWhatWasThere) {
  request_.mutable_sampling()->set_top_p(2);
  EXPECT_EQ(CheckRequest(request_, model_)[0].description,
            "expected a number in (0, 1], got 2");
}

TEST_F(RequestCheckTest, KnowsTheVocabulary) {
  request_.mutable_token_ids()->add_ids(999);
  request_.mutable_token_ids()->add_ids(1000);
  request_.add_stop_token_ids(4000000000u);
  (*request_.mutable_sampling()->mutable_logit_bias())[1000] = 1;
  EXPECT_THAT(BadFields(),
              ElementsAre("token_ids.ids[1]", "sampling.logit_bias[1000]",
                          "stop_token_ids[0]"));
}

TEST_F(RequestCheckTest, ChecksEachMessage) {
  AddMessage("user");
  AddMessage("robot");
  AddMessage("assistant").clear_content();
  AddMessage("assistant").add_tool_calls();
  AddMessage("user").add_content();
  EXPECT_THAT(BadFields(),
              ElementsAre("conversation.messages[1].role",
                          "conversation.messages[2].content",
                          "conversation.messages[3].tool_calls[0].name",
                          "conversation.messages[4].content[1]"));
}

TEST_F(RequestCheckTest, ChecksStopStrings) {
  request_.add_stop("");
  request_.add_stop(std::string(1024, 'x'));
  request_.add_stop(std::string(1025, 'x'));
  EXPECT_THAT(BadFields(), ElementsAre("stop[0]", "stop[2]"));
}

TEST_F(RequestCheckTest, RefusesMoreTokensThanTheContextWithoutReadingThem) {
  for (int i = 0; i < 101; ++i) request_.mutable_token_ids()->add_ids(5000);
  const std::vector<FieldViolation> violations = CheckRequest(request_, model_);
  ASSERT_THAT(violations, SizeIs(1));
  EXPECT_EQ(violations[0].field, "token_ids.ids");
  EXPECT_EQ(violations[0].description, "expected at most 100, got 101");
}

TEST_F(RequestCheckTest, LooksAtNoMoreThanItMust) {
  model_.max_context_tokens = 100000;
  for (int i = 0; i < 100000; ++i) request_.mutable_token_ids()->add_ids(5000);
  EXPECT_THAT(BadFields(), SizeIs(kMaxViolations));
  request_.mutable_text()->set_text("x");
  for (int i = 0; i < 65; ++i) request_.add_stop("");
  EXPECT_THAT(BadFields(), ElementsAre("stop"));
}

// It goes into the log, a line an event.
TEST_F(RequestCheckTest, QuotesTheBeginningOfABadRoleOnOneLine) {
  AddMessage(absl::StrCat("one\ntwo", std::string(10000, 'x')));
  const std::string description =
      CheckRequest(request_, model_).at(0).description;
  EXPECT_THAT(description, HasSubstr("got \"one\\ntwoxx"));
  EXPECT_LT(description.size(), 200u);
}

TEST_F(RequestCheckTest, RefusesATextThatCannotFitWhateverItSays) {
  model_.max_prompt_bytes = 100;
  request_.mutable_text()->set_text(std::string(100, 'x'));
  EXPECT_THAT(BadFields(), IsEmpty());
  request_.mutable_text()->set_text(std::string(101, 'x'));
  EXPECT_THAT(BadFields(), ElementsAre("text.text"));
  AddMessage("user").mutable_content(0)->set_text(std::string(101, 'x'));
  EXPECT_THAT(BadFields(), ElementsAre("conversation"));
}

TEST_F(RequestCheckTest, BoundsPromptAndOutputTogether) {
  request_.set_max_tokens(10);
  EXPECT_EQ(CheckLength(request_, 90, model_), std::nullopt);
  EXPECT_EQ(CheckLength(request_, 91, model_)->field, "max_tokens");
  request_.set_max_tokens(0);
  EXPECT_EQ(CheckLength(request_, 99, model_), std::nullopt);
  EXPECT_EQ(CheckLength(request_, 100, model_)->field, "prompt");
  request_.set_max_tokens(4000000000u);
  EXPECT_EQ(CheckLength(request_, 1, model_)->field, "max_tokens");
}

TEST_F(RequestCheckTest, TheRequestsSamplingWinsOverTheModels) {
  v1::Sampling request;
  request.set_temperature(0);
  const v1::Sampling sampling = CompleteSampling(request, model_, 7);
  EXPECT_EQ(sampling.temperature(), 0);
  EXPECT_EQ(sampling.top_k(), 64u);
  EXPECT_EQ(sampling.seed(), 7u);
  request.set_seed(0);
  EXPECT_EQ(CompleteSampling(request, model_, 7).seed(), 0u);
}

TEST_F(RequestCheckTest, IgnoreEosKeepsTheRequestsOwnStopTokens) {
  request_.add_stop_token_ids(5);
  EXPECT_THAT(StopTokens(request_, model_), ElementsAre(5, 1, 106));
  request_.set_ignore_eos(true);
  EXPECT_THAT(StopTokens(request_, model_), ElementsAre(5));
}

}  // namespace
}  // namespace lapidary
