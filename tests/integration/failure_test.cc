// What happens when something goes away: the worker, the router, the client,
// the time, the port.

#include <signal.h>

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/ask.h"
#include "tests/integration/cluster.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

const absl::Duration kPatience = absl::Seconds(60);

class FailureTest : public ::testing::Test {
 protected:
  FailureTest() { cluster_.Start(); }

  void ExpectThatItWorks() {
    const Reply reply =
        Ask(cluster_.stub(),
            ChatRequest(absl::StrCat(DocumentWithFact(512, 50), kQuestion)));
    ASSERT_OK(reply.status);
    EXPECT_EQ(absl::StripAsciiWhitespace(reply.text), kAnswer);
  }

  Cluster cluster_;
};

TEST_F(FailureTest, AKilledWorkerIsUnavailableAndComesBack) {
  const std::string address = cluster_.worker().rpc;
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(), [this](grpc::ClientContext&) {
        cluster_.worker().process->Signal(SIGKILL);
      });
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kUnavailable)
      << reply.status;
  EXPECT_TRUE(GetRetryDelay(reply.status).has_value()) << reply.status;
  cluster_.StartWorker({"--listen", address});
  cluster_.WaitForGroup();
  ExpectThatItWorks();
}

TEST_F(FailureTest, WithoutAGroupARequestWaitsAndIsToldToRetry) {
  cluster_.StartRouter({"--max-wait-for-group", "1s"});
  cluster_.WaitForGroup();
  cluster_.worker().process->Signal(SIGKILL);
  ASSERT_TRUE(Eventually(kPatience, [this] {
    return cluster_.Status().groups(0).state() != "ready";
  }));
  const Reply reply = Ask(cluster_.stub(), ChatRequest("Hello"));
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(GetRetryDelay(reply.status).has_value()) << reply.status;
}

TEST_F(FailureTest, ATerminatedWorkerFinishesWhatRuns) {
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(300), [this](grpc::ClientContext&) {
        cluster_.worker().process->Signal(SIGTERM);
      });
  ASSERT_OK(reply.status);
  EXPECT_EQ(reply.token_ids.size(), 300u);
  EXPECT_THAT(cluster_.worker().process->Wait(kPatience), Optional(0));
}

TEST_F(FailureTest, ATerminatedRouterFinishesWhatRuns) {
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(300), [this](grpc::ClientContext&) {
        cluster_.router().process->Signal(SIGTERM);
      });
  ASSERT_OK(reply.status);
  EXPECT_EQ(reply.token_ids.size(), 300u);
  EXPECT_THAT(cluster_.router().process->Wait(kPatience), Optional(0));
}

TEST_F(FailureTest, AVanishedClientLeavesTheBatch) {
  const auto client =
      cluster_.RunClient({"generate", "--prompt", "Tell me everything.",
                          "--ignore-eos", "--max-tokens", "100000"});
  ASSERT_TRUE(Eventually(
      kPatience, [this] { return cluster_.Status().running_requests() == 1; }));
  client->Signal(SIGKILL);
  EXPECT_TRUE(cluster_.WaitUntilIdle(kPatience));
  ExpectThatItWorks();
}

TEST_F(FailureTest, ACancelledRequestLeavesTheBatch) {
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(),
          [](grpc::ClientContext& context) { context.TryCancel(); });
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(cluster_.WaitUntilIdle(kPatience));
}

TEST_F(FailureTest, ADeadlineEndsARequest) {
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(), nullptr, absl::Seconds(1));
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kDeadlineExceeded)
      << reply.status;
  EXPECT_TRUE(cluster_.WaitUntilIdle(kPatience));
}

TEST_F(FailureTest, APortInUseIsNamed) {
  const auto worker = cluster_.RunWorker({"--listen", cluster_.worker().rpc});
  EXPECT_THAT(worker->Wait(kPatience), Optional(1));
  EXPECT_THAT(worker->Output(), HasSubstr(cluster_.worker().rpc));
  const auto router = cluster_.RunRouter({"--listen", cluster_.router().rpc});
  EXPECT_THAT(router->Wait(kPatience), Optional(1));
  EXPECT_THAT(router->Output(), HasSubstr(cluster_.router().rpc));
}

TEST_F(FailureTest, AMissingModelIsNamed) {
  const auto worker = cluster_.RunWorker({"--model", "/nowhere"});
  EXPECT_THAT(worker->Wait(kPatience), Optional(1));
  EXPECT_THAT(worker->Output(), HasSubstr("/nowhere"));
  const auto router = cluster_.RunRouter({"--model", "/nowhere"});
  EXPECT_THAT(router->Wait(kPatience), Optional(1));
  EXPECT_THAT(router->Output(), HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace lapidary
