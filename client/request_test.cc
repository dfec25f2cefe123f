#include "client/request.h"

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MakeRequestTest, PutsThePromptAfterTheDocument) {
  const auto request =
      MakeRequest({.document = "A document.", .prompt = "Why?"});
  ASSERT_OK(request);
  ASSERT_EQ(request->conversation().messages_size(), 1);
  EXPECT_EQ(request->conversation().messages(0).role(), "user");
  EXPECT_EQ(request->conversation().messages(0).content(0).text(),
            "A document.\n\nWhy?");
}

TEST(MakeRequestTest, PutsTheSystemMessageFirst) {
  const auto request =
      MakeRequest({.prompt = "Hello", .system = "Be brief.", .think = true});
  ASSERT_OK(request);
  ASSERT_EQ(request->conversation().messages_size(), 2);
  EXPECT_EQ(request->conversation().messages(0).role(), "system");
  EXPECT_TRUE(request->conversation().enable_thinking());
}

TEST(MakeRequestTest, SendsTextAsItStands) {
  const auto request =
      MakeRequest({.form = PromptForm::kText, .prompt = " a <|turn> "});
  ASSERT_OK(request);
  EXPECT_EQ(request->text().text(), " a <|turn> ");
  EXPECT_FALSE(request->text().parse_control_tokens());
}

TEST(MakeRequestTest, RefusesChatOptionsWithText) {
  EXPECT_THAT(
      MakeRequest(
          {.form = PromptForm::kText, .prompt = "a", .system = "Be brief."}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--system")));
}

TEST(MakeRequestTest, NeedsSomeText) {
  EXPECT_THAT(MakeRequest({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("--prompt")));
}

TEST(MakeRequestTest, LeavesUnsetSamplingToTheModel) {
  const auto request = MakeRequest({.prompt = "a"});
  ASSERT_OK(request);
  EXPECT_FALSE(request->sampling().has_temperature());
  EXPECT_FALSE(request->sampling().has_seed());
}

TEST(MakeRequestTest, SetsEverySamplingField) {
  const auto request = MakeRequest({.prompt = "a",
                                    .sampling = {.temperature = 0.0f,
                                                 .top_k = 64,
                                                 .top_p = 0.95f,
                                                 .min_p = 0.1f,
                                                 .repetition_penalty = 1.1f,
                                                 .presence_penalty = 0.5f,
                                                 .frequency_penalty = 0.25f,
                                                 .logit_bias = "5:-100,7:2.5",
                                                 .seed = 0,
                                                 .logprobs = 0}});
  ASSERT_OK(request);
  const v1::Sampling& sampling = request->sampling();
  EXPECT_TRUE(sampling.has_temperature());
  EXPECT_EQ(sampling.temperature(), 0.0f);
  EXPECT_EQ(sampling.top_k(), 64u);
  EXPECT_EQ(sampling.top_p(), 0.95f);
  EXPECT_EQ(sampling.min_p(), 0.1f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.1f);
  EXPECT_EQ(sampling.presence_penalty(), 0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), 0.25f);
  EXPECT_EQ(sampling.logit_bias().at(5), -100.0f);
  EXPECT_EQ(sampling.logit_bias().at(7), 2.5f);
  EXPECT_TRUE(sampling.has_seed());
  EXPECT_TRUE(sampling.has_logprobs());
}

TEST(MakeRequestTest, NamesABadBias) {
  EXPECT_THAT(MakeRequest({.prompt = "a", .sampling = {.logit_bias = "5=1"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("5=1")));
}

TEST(SplitListTest, SplitsAtCommas) {
  EXPECT_THAT(SplitList(""), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(SplitList("a"), IsOkAndHolds(ElementsAre("a")));
  EXPECT_THAT(SplitList("a,b c"), IsOkAndHolds(ElementsAre("a", "b c")));
}

TEST(SplitListTest, ReadsEscapes) {
  EXPECT_THAT(SplitList(R"(\n\n,a\,b,\\,\t)"),
              IsOkAndHolds(ElementsAre("\n\n", "a,b", "\\", "\t")));
}

TEST(SplitListTest, RefusesUnknownEscapes) {
  EXPECT_THAT(SplitList(R"(\x)"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SplitList("\\"), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace lapidary
