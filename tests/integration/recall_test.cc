// The right answer out of a document, from the client's call through router and
// worker and back.

#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/ask.h"
#include "tests/integration/cluster.h"

namespace lapidary {
namespace {

class RecallTest : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() {
    cluster_ = new Cluster;
    cluster_->Start();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }

  static void ExpectTheAnswer(const Reply& reply) {
    ASSERT_OK(reply.status);
    EXPECT_EQ(absl::StripAsciiWhitespace(reply.text), kAnswer);
    EXPECT_EQ(reply.completed.finish_reason(), v1::FINISH_REASON_STOP);
  }

  static Cluster* cluster_;
};

Cluster* RecallTest::cluster_ = nullptr;

TEST_P(RecallTest, AnswersInChatForm) {
  const std::string document = DocumentWithFact(GetParam() - 64, 30);
  const Reply reply =
      Ask(cluster_->stub(), ChatRequest(absl::StrCat(document, kQuestion)));
  ExpectTheAnswer(reply);
  EXPECT_NEAR(reply.completed.usage().prompt_tokens(), GetParam(), 128);
  EXPECT_EQ(reply.completed.usage().output_tokens(), reply.token_ids.size());
}

TEST_P(RecallTest, AnswersInTextForm) {
  const std::string document = DocumentWithFact(GetParam() - 32, 70);
  ExpectTheAnswer(
      Ask(cluster_->stub(), TextRequest(absl::StrCat(document, kQuestion))));
}

TEST_P(RecallTest, CountsTheTokensThatGenerateUses) {
  const v1::GenerateRequest request = ChatRequest(
      absl::StrCat(DocumentWithFact(GetParam() - 64, 50), kQuestion));
  grpc::ClientContext context;
  v1::CountTokensResponse count;
  ASSERT_TRUE(cluster_->stub().CountTokens(&context, request, &count).ok());
  const Reply reply = Ask(cluster_->stub(), request);
  EXPECT_EQ(count.prompt_tokens(), reply.completed.usage().prompt_tokens());
}

INSTANTIATE_TEST_SUITE_P(Context, RecallTest,
                         ::testing::Values(1024, 4096, 16384));

TEST_F(RecallTest, FindsTheFactAtBothEnds) {
  for (const double depth : {0.0, 100.0}) {
    ExpectTheAnswer(Ask(
        cluster_->stub(),
        ChatRequest(absl::StrCat(DocumentWithFact(2048, depth), kQuestion))));
  }
}

// How often is a matter of the machine too: progress_pace_test has a clock of
// its own for that.
TEST_F(RecallTest, ReportsProgressThatAscends) {
  const Reply reply =
      Ask(cluster_->stub(),
          ChatRequest(absl::StrCat(DocumentWithFact(20000, 50), kQuestion)));
  ExpectTheAnswer(reply);
  ASSERT_FALSE(reply.progress.empty());
  uint32_t before = 0;
  for (const v1::Progress& progress : reply.progress) {
    EXPECT_GE(progress.prefilled_tokens(), before);
    before = progress.prefilled_tokens();
    EXPECT_LE(before, progress.prompt_tokens());
  }
  EXPECT_GT(before, 0u);
}

TEST_F(RecallTest, AnswersAShortQuestionDuringALongPrefill) {
  const std::string document = DocumentWithFact(20000, 50);
  Reply long_reply;
  std::thread asks([&] {
    long_reply =
        Ask(cluster_->stub(), ChatRequest(absl::StrCat(document, kQuestion)));
  });
  ExpectTheAnswer(
      Ask(cluster_->stub(),
          ChatRequest(absl::StrCat(DocumentWithFact(512, 50), kQuestion))));
  asks.join();
  ExpectTheAnswer(long_reply);
}

TEST_F(RecallTest, AnswersManyAtOnce) {
  constexpr int kClients = 8;
  std::vector<Reply> replies(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&replies, i] {
      replies[i] =
          Ask(cluster_->stub(),
              ChatRequest(absl::StrCat(
                  DocumentWithFact(700 + 300 * i, 10.0 * i), kQuestion)));
    });
  }
  for (std::thread& client : clients) client.join();
  for (const Reply& reply : replies) ExpectTheAnswer(reply);
}

}  // namespace
}  // namespace lapidary
