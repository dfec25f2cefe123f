#include "router/text/detokenizer.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "router/text/tokenizer.h"
#include "router/text/utf8.h"

namespace lapidary {
namespace {

class DetokenizerTest : public ::testing::Test {
 protected:
  std::vector<TokenId> Encode(const std::string& text) {
    return tokenizer_->Encode(text);
  }

  const std::unique_ptr<Tokenizer> tokenizer_ =
      Tokenizer::Load("tests/testdata/tokenizer/mini/tokenizer.json").value();
  Detokenizer detokenizer_{*tokenizer_};
};

TEST_F(DetokenizerTest, GivesTextTokensAtOnce) {
  std::string text;
  for (const TokenId id : Encode(" the  end")) {
    const std::string piece = detokenizer_.Push(id);
    EXPECT_FALSE(piece.empty());
    text += piece;
  }
  EXPECT_EQ(text, " the  end");
  EXPECT_EQ(detokenizer_.Flush(), "");
}

TEST_F(DetokenizerTest, HoldsBytesUntilTheirRunEnds) {
  const std::vector<TokenId> ids = Encode("𒀀.");
  ASSERT_EQ(ids.size(), 5);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(detokenizer_.Push(ids[i]), "");
  EXPECT_EQ(detokenizer_.Push(ids[4]), "𒀀.");
}

TEST_F(DetokenizerTest, FlushesARunAtTheEnd) {
  for (const TokenId id : Encode("𒀀")) EXPECT_EQ(detokenizer_.Push(id), "");
  EXPECT_EQ(detokenizer_.Flush(), "𒀀");
  EXPECT_EQ(detokenizer_.Flush(), "");
}

TEST_F(DetokenizerTest, ReplacesHalfACharacterAtTheEnd) {
  detokenizer_.Push(Encode("𒀀").front());
  EXPECT_EQ(detokenizer_.Flush(), "\uFFFD");
}

TEST_F(DetokenizerTest, EqualsTheDecoderOnAnyTokens) {
  const std::vector<TokenId> bytes = Encode("𒀀𒀁é𒐀");
  std::mt19937 random(1);
  for (int round = 0; round < 1000; ++round) {
    std::vector<TokenId> ids;
    std::string text;
    for (int i = 0; i < 30; ++i) {
      ids.push_back(random() % 3 == 0 ? static_cast<TokenId>(
                                            random() % tokenizer_->vocab_size())
                                      : bytes[random() % bytes.size()]);
      const std::string piece = detokenizer_.Push(ids.back());
      ASSERT_OK(ValidateUtf8(piece));
      text += piece;
    }
    ASSERT_EQ(text + detokenizer_.Flush(), tokenizer_->Decode(ids));
  }
}

}  // namespace
}  // namespace lapidary
