#include "client/generation_printer.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

v1::GenerateResponse Text(const std::string& text) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_text(text);
  response.mutable_delta()->add_token_ids(7);
  return response;
}

v1::GenerateResponse Thinking(const std::string& text) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_thinking(text);
  return response;
}

v1::GenerateResponse Completed() {
  v1::GenerateResponse response;
  v1::Completed& completed = *response.mutable_completed();
  completed.set_finish_reason(v1::FINISH_REASON_STOP);
  completed.mutable_usage()->set_prompt_tokens(16384);
  completed.mutable_usage()->set_output_tokens(21);
  completed.mutable_timings()->set_prefill_seconds(8);
  completed.mutable_timings()->set_decode_seconds(0.5);
  return response;
}

class GenerationPrinterTest : public ::testing::Test {
 protected:
  void Print(const PrinterOptions& options,
             const std::vector<v1::GenerateResponse>& stream) {
    GenerationPrinter printer(options, absl::UnixEpoch(), answer_, notes_);
    for (const auto& response : stream) {
      printer.Show(response, absl::UnixEpoch());
    }
    printer.Finish();
  }

  std::ostringstream answer_;
  std::ostringstream notes_;
};

TEST_F(GenerationPrinterTest, EndsTheAnswerWithALineFeed) {
  Print({.form = OutputForm::kText}, {Text("Hel"), Text("lo"), Completed()});
  EXPECT_EQ(answer_.str(), "Hello\n");
  EXPECT_EQ(notes_.str(), "");
}

TEST_F(GenerationPrinterTest, StreamsTheAnswer) {
  GenerationPrinter printer({.form = OutputForm::kTextStream},
                            absl::UnixEpoch(), answer_, notes_);
  printer.Show(Text("Hel"), absl::UnixEpoch());
  EXPECT_EQ(answer_.str(), "Hel");
  printer.Show(Text("lo\n"), absl::UnixEpoch());
  printer.Finish();
  EXPECT_EQ(answer_.str(), "Hello\n");
}

TEST_F(GenerationPrinterTest, SaysThatAnAnswerHasNoText) {
  Print({.form = OutputForm::kTextStream}, {Completed()});
  EXPECT_EQ(answer_.str(), "");
  EXPECT_EQ(notes_.str(), "(no text: ended by stop, 21 output tokens)\n");
}

TEST_F(GenerationPrinterTest, OneTokenIsNotAPlural) {
  v1::GenerateResponse completed = Completed();
  completed.mutable_completed()->mutable_usage()->set_output_tokens(1);
  Print({.form = OutputForm::kText}, {completed});
  EXPECT_THAT(notes_.str(), HasSubstr(", 1 output token)"));
}

TEST_F(GenerationPrinterTest, KeepsThoughtsOutOfTheAnswer) {
  Print({.form = OutputForm::kTextStream},
        {Thinking("Hm"), Thinking("..."), Text("Yes"), Completed()});
  EXPECT_EQ(answer_.str(), "Yes\n");
  EXPECT_EQ(notes_.str(), "[thinking] Hm...\n[answer]\n");
}

TEST_F(GenerationPrinterTest, WipesTheProgressBarBeforeTheAnswer) {
  v1::GenerateResponse progress;
  progress.mutable_progress()->set_prompt_tokens(100);
  Print({.form = OutputForm::kTextStream, .progress = true},
        {progress, Text("Yes"), Completed()});
  EXPECT_THAT(notes_.str(), HasSubstr("\rprefill ["));
  EXPECT_THAT(notes_.str(), EndsWith(" \r"));
}

TEST_F(GenerationPrinterTest, WritesOneJsonObject) {
  Print({.form = OutputForm::kJson}, {Text("Hel"), Text("lo"), Completed()});
  const auto json = nlohmann::json::parse(answer_.str(), nullptr, false);
  ASSERT_TRUE(json.is_object()) << answer_.str();
  EXPECT_EQ(json["text"], "Hello");
  EXPECT_EQ(json["token_ids"], nlohmann::json({7, 7}));
  EXPECT_EQ(json["completed"]["usage"]["prompt_tokens"], 16384);
  EXPECT_EQ(json["completed"]["finish_reason"], "FINISH_REASON_STOP");
}

TEST_F(GenerationPrinterTest, WritesEveryMessageAsAJsonLine) {
  Print({.form = OutputForm::kJsonStream}, {Text("a"), Completed()});
  std::istringstream lines(answer_.str());
  std::string line;
  int count = 0;
  for (; std::getline(lines, line); ++count) {
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  }
  EXPECT_EQ(count, 2);
}

TEST_F(GenerationPrinterTest, WritesNoJsonForAFailedStream) {
  Print({.form = OutputForm::kJson}, {Text("a")});
  EXPECT_EQ(answer_.str(), "");
}

TEST_F(GenerationPrinterTest, ListsLogprobs) {
  v1::GenerateResponse response = Text("a");
  auto& logprobs = *response.mutable_delta()->add_logprobs();
  logprobs.mutable_chosen()->set_token_id(7);
  logprobs.mutable_chosen()->set_logprob(-0.5);
  logprobs.add_top()->set_token_id(9);
  Print({.form = OutputForm::kText, .logprobs = true}, {response});
  EXPECT_EQ(notes_.str(), "logprob 0: token 7 -0.5000, 9 0.0000\n");
}

TEST(TimingsTextTest, GivesBothSpeeds) {
  const std::string text = TimingsText(Completed().completed());
  EXPECT_THAT(text, HasSubstr("prefill      16,384 tokens in 8.00 s (2,048 "));
  EXPECT_THAT(text, HasSubstr("decode       20 tokens in 0.50 s (40.0 "));
  EXPECT_THAT(text, HasSubstr("total        16,405 tokens"));
  EXPECT_THAT(text, HasSubstr("ended by stop\n"));
}

}  // namespace
}  // namespace lapidary
