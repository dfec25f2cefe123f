#include "router/core/session.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

const Tokenizer& TestTokenizer() {
  static const Tokenizer* tokenizer =
      Tokenizer::Load("tests/testdata/tokenizer/mini/tokenizer.json")
          .value()
          .release();
  return *tokenizer;
}

absl::Time At(int seconds) {
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

class SessionTest : public ::testing::Test {
 protected:
  void Start(std::vector<std::string> stop_strings = {},
             std::vector<TokenId> stop_tokens = {},
             absl::Duration tokenize_time = absl::ZeroDuration()) {
    Session::Request request;
    request.stop_strings = std::move(stop_strings);
    request.stop_tokens = std::move(stop_tokens);
    request.tokenize_time = tokenize_time;
    request.arrival = At(0);
    session_ = std::make_unique<Session>(TestTokenizer(), std::move(request));
  }

  static std::vector<TokenId> Tokens(const std::string& text) {
    return TestTokenizer().Encode(text);
  }

  // Pushes the tokens of `text` one by one and returns the answer so far.
  std::string Push(const std::string& text) {
    for (const TokenId token : Tokens(text)) {
      const Session::Output output = session_->Push({&token, 1}, At(1));
      answer_ += output.text;
      thinking_ += output.thinking;
      num_tokens_ += output.num_tokens;
    }
    return answer_;
  }

  std::unique_ptr<Session> session_;
  std::string answer_;
  std::string thinking_;
  int num_tokens_ = 0;
};

TEST_F(SessionTest, TurnsTokensIntoText) {
  Start();
  EXPECT_EQ(Push("The answer is 42."), "The answer is 42.");
  EXPECT_EQ(session_->finish(), std::nullopt);
  EXPECT_EQ(session_->End().text, "");
  EXPECT_EQ(session_->finish(), Session::Finish::kLength);
}

TEST_F(SessionTest, EndsAtAStopTokenWithoutItsText) {
  const TokenId stop = *TestTokenizer().ControlToken("<turn|>");
  Start({}, {stop});
  EXPECT_EQ(Push("Yes.<turn|>and more"), "Yes.");
  EXPECT_EQ(session_->finish(), Session::Finish::kStopToken);
  EXPECT_EQ(session_->stop_token(), stop);
  // The stop token counts; what came after it does not.
  EXPECT_EQ(session_->output_tokens(),
            static_cast<int>(Tokens("Yes.<turn|>").size()));
}

TEST_F(SessionTest, AnOrdinaryTokenCanBeAStopToken) {
  const std::vector<TokenId> tokens = Tokens("a b");
  Start({}, {tokens.back()});
  EXPECT_EQ(Push("a b"), "a");
  EXPECT_EQ(session_->finish(), Session::Finish::kStopToken);
}

TEST_F(SessionTest, EndsBeforeAStopString) {
  Start({"\nUser:", "END"});
  EXPECT_EQ(Push("Fine.\nUser: what"), "Fine.");
  EXPECT_EQ(session_->finish(), Session::Finish::kStopString);
  EXPECT_EQ(session_->stop_string(), "\nUser:");
  EXPECT_LT(num_tokens_, static_cast<int>(Tokens("Fine.\nUser: what").size()));
}

TEST_F(SessionTest, ShowsWhatOnlyLookedLikeAStopString) {
  Start({"\n\nUser"});
  EXPECT_EQ(Push("Fine.\n"), "Fine.");
  EXPECT_EQ(session_->End().text, "\n");
}

TEST_F(SessionTest, KeepsThoughtsApart) {
  Start({"hm"});
  EXPECT_EQ(Push("<|channel>thought\nhm, 6 * 7\n<channel|>42"), "42");
  EXPECT_EQ(thinking_, "hm, 6 * 7");
  EXPECT_GT(session_->thinking_tokens(), 3);
  EXPECT_LT(session_->thinking_tokens(), session_->output_tokens());
  EXPECT_EQ(session_->finish(), std::nullopt);
}

TEST_F(SessionTest, TellsHowManyOfSeveralTokensCount) {
  const TokenId stop = *TestTokenizer().ControlToken("<turn|>");
  Start({}, {stop});
  const std::vector<TokenId> tokens = Tokens("Yes<turn|>no");
  const Session::Output output = session_->Push(tokens, At(1));
  EXPECT_EQ(output.text, "Yes");
  EXPECT_EQ(output.num_tokens, static_cast<int>(tokens.size()) - 1);
  EXPECT_EQ(session_->Push(tokens, At(2)).num_tokens, 0);
}

TEST_F(SessionTest, MeasuresTheParts) {
  Start({}, {}, absl::Seconds(1));
  const std::vector<TokenId> token = Tokens("a");
  session_->OnStarted(At(2));
  session_->OnPrefillStarted(At(4));
  session_->Push(token, At(7));
  session_->Push(token, At(9));
  const Session::Timings timings = session_->TimingsAt(At(10), std::nullopt);
  EXPECT_EQ(timings.queue, absl::Seconds(3));
  EXPECT_EQ(timings.prefill, absl::Seconds(3));
  EXPECT_EQ(timings.decode, absl::Seconds(2));
  EXPECT_EQ(timings.total, absl::Seconds(10));
  EXPECT_EQ(timings.tokenize, absl::Seconds(1));
  // The group knows better when it began.
  const Session::GroupTimes group = {.queued = absl::Seconds(1)};
  EXPECT_EQ(session_->TimingsAt(At(10), group).prefill, absl::Seconds(4));
}

}  // namespace
}  // namespace lapidary
