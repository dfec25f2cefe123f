#include "worker/engine/outbox.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<TokenId> TokensOf(const Outbox::Contents& contents) {
  std::vector<TokenId> tokens;
  for (const SampledToken& token : contents.tokens) {
    tokens.push_back(token.token);
  }
  return tokens;
}

class OutboxTest : public ::testing::Test {
 protected:
  void AddTokens(const std::vector<TokenId>& tokens) {
    for (const TokenId token : tokens) outbox_.AddToken({token, 0, {}});
  }

  Outbox outbox_{/*max_tokens=*/5, /*on_change=*/[] {}};
};

TEST_F(OutboxTest, IsEmptyAtFirstAndOnceTaken) {
  EXPECT_TRUE(outbox_.Take(10).empty());
  AddTokens({1});
  EXPECT_FALSE(outbox_.Take(10).empty());
  EXPECT_TRUE(outbox_.Take(10).empty());
}

TEST_F(OutboxTest, KeepsTheLatestProgressAlone) {
  outbox_.SetProgress({.prefilled_tokens = 1});
  outbox_.SetProgress({.prefilled_tokens = 2});
  EXPECT_EQ(outbox_.Take(10).progress->prefilled_tokens, 2);
}

TEST_F(OutboxTest, GivesTokensInPartsAndTheEndWithTheLast) {
  AddTokens({1, 2, 3});
  outbox_.Finish({});
  const Outbox::Contents first = outbox_.Take(2);
  EXPECT_THAT(TokensOf(first), ElementsAre(1, 2));
  EXPECT_FALSE(first.finished.has_value());
  const Outbox::Contents second = outbox_.Take(2);
  EXPECT_THAT(TokensOf(second), ElementsAre(3));
  EXPECT_TRUE(second.finished.has_value());
}

TEST_F(OutboxTest, TakesNoMoreTokensThanTheRequestMayHave) {
  AddTokens({1, 2, 3, 4, 5});
  EXPECT_DEATH(AddTokens({6}), "");
}

}  // namespace
}  // namespace lapidary
