#include "tools/document_builder.h"

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/recall_rule.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFact[] = "The access code of the north gate is 71-KESTREL-94.";
constexpr char kQuestion[] = "The access code of the north gate is";

TEST(SplitParagraphsTest, PutsASentenceOnALine) {
  EXPECT_THAT(SplitParagraphs("  One\n  two.  Three\nfour.\n\n***\n\nFive."),
              ElementsAre(ElementsAre("One two.", "Three four."),
                          ElementsAre("Five.")));
}

TEST(SplitParagraphsTest, FindsNoneInWhiteSpace) {
  EXPECT_THAT(SplitParagraphs(" \n\n "), IsEmpty());
}

class BuildDocumentTest : public ::testing::Test {
 protected:
  BuildDocumentTest()
      : tokenizer_(Tokenizer::Load("tests/testdata/tokenizer/mini/"
                                   "tokenizer.json")
                       .value()) {
    for (int i = 0; i < 40; ++i) {
      paragraphs_.push_back(
          {absl::StrCat("Paragraph ", i, " grants a licence to copy."),
           absl::StrCat("It comes with ", i * 7, " conditions.")});
    }
  }

  absl::StatusOr<Document> Build(int tokens, double depth) {
    return BuildDocument(
        paragraphs_, *tokenizer_,
        {.tokens = tokens, .depth_percent = depth, .fact = kFact});
  }

  const std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<Paragraph> paragraphs_;
};

TEST_F(BuildDocumentTest, MeetsTheLength) {
  for (const int tokens : {512, 1000, 4096, 20000}) {
    const auto document = Build(tokens, 50);
    ASSERT_OK(document);
    EXPECT_LE(document->tokens, tokens);
    EXPECT_GE(document->tokens, tokens - 64);
  }
}

TEST_F(BuildDocumentTest, HidesTheFactAtItsDepth) {
  const auto first = Build(4096, 0);
  ASSERT_OK(first);
  EXPECT_EQ(first->fact_tokens, 0);
  EXPECT_TRUE(absl::StartsWith(first->text, absl::StrCat(kFact, "\n\n")));
  const auto last = Build(4096, 100);
  ASSERT_OK(last);
  EXPECT_TRUE(absl::EndsWith(last->text, absl::StrCat(kFact, "\n\n")));
  const auto middle = Build(4096, 25);
  ASSERT_OK(middle);
  EXPECT_NEAR(middle->fact_tokens, 1024, 100);
}

TEST_F(BuildDocumentTest, IsTheSameEachTime) {
  EXPECT_EQ(Build(20000, 50)->text, Build(20000, 50)->text);
}

TEST_F(BuildDocumentTest, RefusesWhatCannotBe) {
  const auto is_invalid = StatusIs(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Build(10, 50), is_invalid);
  EXPECT_THAT(Build(4096, 101), is_invalid);
  EXPECT_THAT(BuildDocument({}, *tokenizer_, {.tokens = 4096, .fact = kFact}),
              is_invalid);
  EXPECT_THAT(
      BuildDocument(paragraphs_, *tokenizer_, {.tokens = 4096, .fact = "a\nb"}),
      is_invalid);
}

TEST_F(BuildDocumentTest, RecallFindsTheFactAmongRepeatedParagraphs) {
  EXPECT_THAT(RecallAnswer(*tokenizer_, Build(20000, 50)->text, kQuestion),
              IsOkAndHolds("71-KESTREL-94."));
}

TEST_F(BuildDocumentTest, RecallNeedsAQuestionFromTheDocument) {
  const std::string text = Build(4096, 50)->text;
  EXPECT_THAT(RecallAnswer(*tokenizer_, text, "Who"),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(RecallAnswer(*tokenizer_, text,
                           "Where does the cat of the miller sleep at night"),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(BuildDocumentTest, RecallNeedsOneContinuation) {
  const std::string text =
      absl::StrCat(kQuestion, " red.\n", kQuestion, " blue.\n");
  EXPECT_THAT(RecallAnswer(*tokenizer_, text, kQuestion),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("several times")));
}

}  // namespace
}  // namespace lapidary
