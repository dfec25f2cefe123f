#include "router/text/output_parser.h"

#include <memory>
#include <string>
#include <vector>

#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "router/text/tokenizer.h"

namespace lapidary {
namespace {

class OutputParserTest : public ::testing::Test {
 protected:
  // What the client sees of the output `text`.
  void Parse(const std::string& text,
             OutputStart start = OutputStart::kAnswer) {
    OutputParser parser(*tokenizer_, start);
    answer_ = thinking_ = "";
    for (const TokenId id : tokenizer_->Encode(text)) Take(parser.Push(id));
    Take(parser.Flush());
  }

  void Take(const OutputParser::Delta& delta) {
    answer_ += delta.text;
    thinking_ += delta.thinking;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ =
      Tokenizer::Load("tests/testdata/tokenizer/mini/tokenizer.json").value();
  std::string answer_;
  std::string thinking_;
};

TEST_F(OutputParserTest, PassesAPlainAnswer) {
  Parse("It is 4.\n\n<turn|>");
  EXPECT_EQ(answer_, "It is 4.\n\n");
  EXPECT_EQ(thinking_, "");
}

TEST_F(OutputParserTest, SplitsThoughtsFromTheAnswer) {
  Parse("<|channel>thought\nTwo and\ntwo.\n<channel|>It is 4.<turn|>");
  EXPECT_EQ(thinking_, "Two and\ntwo.");
  EXPECT_EQ(answer_, "It is 4.");
}

TEST_F(OutputParserTest, AnEmptyChannelLeavesNoTrace) {
  for (const std::string channel :
       {"<|channel>thought\n<channel|>", "<|channel>thought<channel|>",
        "<|channel><channel|>", "<|channel>thought\n\n<channel|>"}) {
    Parse(channel + "Hi");
    EXPECT_EQ(thinking_, "") << channel;
    EXPECT_EQ(answer_, "Hi") << channel;
  }
}

TEST_F(OutputParserTest, BeginsInTheChannelThatThePromptOpened) {
  Parse("thought\nis free.\n<channel|>Yes.", OutputStart::kThinking);
  EXPECT_EQ(thinking_, "thought\nis free.");
  EXPECT_EQ(answer_, "Yes.");
}

TEST_F(OutputParserTest, AChannelThatNeverEndsIsThinking) {
  Parse("<|channel>thought\nand on and on\n");
  EXPECT_EQ(thinking_, "and on and on\n");
  EXPECT_EQ(answer_, "");
  Parse("<|channel>thou");
  EXPECT_EQ(thinking_, "");
}

TEST_F(OutputParserTest, KeepsALabelThatIsNotTheOne) {
  Parse("<|channel>thoughtful\n<channel|>");
  EXPECT_EQ(thinking_, "thoughtful");
}

TEST_F(OutputParserTest, ThinksAgainAfterTheAnswer) {
  Parse("<|channel>thought\na\n<channel|>b<|channel>thought\nc\n<channel|>d");
  EXPECT_EQ(thinking_, "ac");
  EXPECT_EQ(answer_, "bd");
}

TEST_F(OutputParserTest, PassesToolCallsVerbatim) {
  const std::string call =
      "<|tool_call>call:find{city:<|\"|>Paris<|\"|>,days:3}<tool_call|>";
  Parse("<|channel>thought\nask\n<channel|>" + call + call +
        "<|tool_response>");
  EXPECT_EQ(thinking_, "ask");
  EXPECT_EQ(answer_, call + call);
}

TEST_F(OutputParserTest, AToolCallEndsTheThoughts) {
  Parse("ask<|tool_call>call:f{}<tool_call|>", OutputStart::kThinking);
  EXPECT_EQ(thinking_, "ask");
  EXPECT_EQ(answer_, "<|tool_call>call:f{}<tool_call|>");
}

TEST_F(OutputParserTest, HidesStrayControlTokens) {
  Parse("a<|\"|>b<channel|>c<|image|><eos>");
  EXPECT_EQ(answer_, "abc");
}

TEST_F(OutputParserTest, KeepsCharactersWholeAtTheBorders) {
  Parse("<|channel>thought\n𒀀<channel|>𒀁<turn|>");
  EXPECT_EQ(thinking_, "𒀀");
  EXPECT_EQ(answer_, "𒀁");
}

TEST_F(OutputParserTest, StreamsThoughtsWithoutDelay) {
  OutputParser parser(*tokenizer_, OutputStart::kThinking);
  const std::vector<TokenId> ids = tokenizer_->Encode("one two");
  EXPECT_EQ(parser.Push(ids[0]).thinking, tokenizer_->TokenBytes(ids[0]));
  EXPECT_TRUE(parser.in_thinking());
}

}  // namespace
}  // namespace lapidary
