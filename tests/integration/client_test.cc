// The command line client against a router.

#include <signal.h>

#include <fstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/ask.h"
#include "tests/integration/cluster.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr int kTimeout = -1;

class ClientTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ = new Cluster;
    cluster_->Start();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }

  // Runs the client to its end; output_ is what it wrote, to both streams.
  int Lapidary(const Flags& flags, const std::string& input = "/dev/null") {
    const auto client = cluster_->RunClient(flags, input);
    const int code = client->Wait(absl::Minutes(2)).value_or(kTimeout);
    output_ = client->Output();
    return code;
  }

  static std::string WriteFile(absl::string_view name,
                               const std::string& text) {
    const std::string path = NewPath(name);
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  static Cluster* cluster_;
  std::string output_;
};

Cluster* ClientTest::cluster_ = nullptr;

TEST_F(ClientTest, AnswersFromAFile) {
  const std::string document =
      WriteFile("document.txt", DocumentWithFact(2000, 50));
  EXPECT_EQ(Lapidary({"generate", "--file", document, "--prompt", kQuestion,
                      "--temperature", "0"}),
            0)
      << output_;
  EXPECT_EQ(absl::StripLeadingAsciiWhitespace(output_),
            absl::StrCat(kAnswer, "\n"));
}

TEST_F(ClientTest, ContinuesAText) {
  const std::string text = absl::StrCat(DocumentWithFact(600, 50), kQuestion);
  EXPECT_EQ(Lapidary({"generate", "--raw", "--prompt", text, "--temperature",
                      "0", "--stream"}),
            0);
  EXPECT_THAT(output_, HasSubstr(kAnswer));
}

TEST_F(ClientTest, WritesJson) {
  EXPECT_EQ(Lapidary({"generate", "--prompt", "Hello", "--json", "--max-tokens",
                      "3", "--logprobs", "2"}),
            0);
  const auto json = nlohmann::json::parse(output_, nullptr, false);
  ASSERT_TRUE(json.is_object()) << output_;
  EXPECT_TRUE(json["completed"]["usage"]["prompt_tokens"].is_number());
  EXPECT_EQ(json["logprobs"].size(), json["token_ids"].size());
}

TEST_F(ClientTest, CountsTokens) {
  EXPECT_EQ(Lapidary({"count", "--prompt", "Hello"}), 0);
  EXPECT_GT(std::stoi(output_), 5);
}

TEST_F(ClientTest, ShowsTheState) {
  EXPECT_EQ(Lapidary({"status"}), 0);
  EXPECT_THAT(output_,
              HasSubstr(absl::StrCat("router ", cluster_->router().rpc)));
  EXPECT_THAT(output_, HasSubstr(absl::StrCat("group ", cluster_->worker().rpc,
                                              "  ready")));
  EXPECT_THAT(output_, HasSubstr("window "));
  EXPECT_EQ(Lapidary({"status", "--json"}), 0);
  EXPECT_TRUE(nlohmann::json::accept(output_)) << output_;
}

TEST_F(ClientTest, ChatsOverAPipe) {
  const std::string question =
      absl::StrCat("Remember: ", kQuestion, " ", kAnswer);
  const std::string lines = WriteFile(
      "chat.txt",
      absl::StrCat(question, "\n/think\n/think\n", kQuestion, "\n/quit\n"));
  EXPECT_EQ(
      Lapidary({"chat", "--temperature", "0", "--max-tokens", "32"}, lines), 0)
      << output_;
  EXPECT_THAT(output_, HasSubstr(kAnswer));
}

TEST_F(ClientTest, TellsWhichFieldIsWrong) {
  EXPECT_EQ(Lapidary({"generate", "--prompt", "Hello", "--top-p", "2"}), 2);
  EXPECT_THAT(output_, HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(output_, HasSubstr("sampling.top_p"));
}

TEST_F(ClientTest, TellsThatNobodyIsThere) {
  EXPECT_EQ(
      Lapidary({"generate", "--prompt", "Hello", "--router", "127.0.0.1:1"}),
      3);
  EXPECT_THAT(output_, HasSubstr("UNAVAILABLE"));
}

// gRPC would take it for port 34463.
TEST_F(ClientTest, RefusesARouterWithoutAPortThatExists) {
  EXPECT_EQ(Lapidary({"status", "--router", "127.0.0.1:99999"}), 2);
  EXPECT_THAT(output_, HasSubstr("--router needs HOST:PORT"));
}

// It used to end by a signal.
TEST_F(ClientTest, RefusesADirectoryForADocument) {
  EXPECT_EQ(Lapidary({"count", "--file", ::testing::TempDir()}), 2);
  EXPECT_THAT(output_, HasSubstr("it is a directory"));
}

TEST_F(ClientTest, TellsThatADocumentIsEmpty) {
  EXPECT_EQ(Lapidary({"count", "--file", "-"}), 2);
  EXPECT_THAT(output_, HasSubstr("it is empty"));
}

TEST_F(ClientTest, MeetsItsDeadline) {
  EXPECT_EQ(Lapidary({"generate", "--prompt", "Hello", "--ignore-eos",
                      "--max-tokens", "100000", "--deadline", "1s"}),
            4);
}

TEST_F(ClientTest, CancelsOnInterrupt) {
  const auto client =
      cluster_->RunClient({"generate", "--prompt", "Hello", "--ignore-eos",
                           "--max-tokens", "100000"});
  ASSERT_TRUE(Eventually(absl::Minutes(1), [] {
    return cluster_->Status().running_requests() == 1;
  }));
  client->Signal(SIGINT);
  EXPECT_EQ(client->Wait(absl::Minutes(1)).value_or(kTimeout), 130);
  EXPECT_TRUE(cluster_->WaitUntilIdle(absl::Minutes(1)));
}

}  // namespace
}  // namespace lapidary
