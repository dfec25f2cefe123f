// What any client sees: health, reflection, the model, the state, errors with
// their details, big messages, metrics.

#include <string>

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
using ::testing::IsEmpty;
using ::testing::Not;

// Encoded messages: an empty one, HealthCheckResponse{SERVING}, and
// ServerReflectionRequest{list_services: ""}.
constexpr char kEmpty[] = "";
constexpr char kServing[] = "\x08\x01";
constexpr char kListServices[] = {0x3a, 0x00};

class ProtocolTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ = new Cluster;
    cluster_->Start();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }

  static absl::StatusOr<v1::CountTokensResponse> Count(
      const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::CountTokensResponse count;
    const absl::Status status =
        FromGrpcStatus(cluster_->stub().CountTokens(&context, request, &count));
    if (!status.ok()) return status;
    return count;
  }

  static Cluster* cluster_;
};

Cluster* ProtocolTest::cluster_ = nullptr;

TEST_F(ProtocolTest, IsHealthy) {
  EXPECT_TRUE(Eventually(absl::Seconds(30), [] {
    const auto health =
        CallRaw(cluster_->channel(), "/grpc.health.v1.Health/Check", kEmpty);
    return health.ok() && *health == kServing;
  }));
}

TEST_F(ProtocolTest, ListsItsServices) {
  EXPECT_THAT(
      CallRaw(cluster_->channel(),
              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              absl::string_view(kListServices, sizeof(kListServices))),
      IsOkAndHolds(HasSubstr("lapidary.v1.Inference")));
}

TEST_F(ProtocolTest, DescribesTheModel) {
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(cluster_->stub().GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.model_type(), "gemma4_unified");
  EXPECT_EQ(model.vocab_size(), 8192u);
  EXPECT_EQ(model.chat_template(), "large");
  EXPECT_THAT(model.config_digest(), Not(IsEmpty()));
  EXPECT_THAT(model.tokenizer_digest(), Not(IsEmpty()));
  EXPECT_GT(model.max_context_tokens(), 16384u);
}

TEST_F(ProtocolTest, TellsItsState) {
  const v1::GetStatusResponse status = cluster_->Status();
  ASSERT_EQ(status.groups_size(), 1);
  const v1::GroupStatus& group = status.groups(0);
  EXPECT_EQ(group.address(), cluster_->worker().rpc);
  EXPECT_EQ(group.ranks(), 1u);
  EXPECT_EQ(group.compute(), "bf16");
  EXPECT_GT(group.global_pages().total(), 0u);
  EXPECT_GT(group.window_pages().total(), 0u);
}

TEST_F(ProtocolTest, CarriesTheRequestId) {
  const Reply chosen = Ask(cluster_->stub(), ChatRequest("Hello"), nullptr,
                           absl::Minutes(1), "my-id-1");
  EXPECT_EQ(chosen.request_id, "my-id-1");
  EXPECT_EQ(chosen.completed.request_id(), "my-id-1");
  EXPECT_THAT(cluster_->worker().process->Output(), HasSubstr("my-id-1"));
  EXPECT_THAT(cluster_->router().process->Output(), HasSubstr("my-id-1"));
  const Reply drawn = Ask(cluster_->stub(), ChatRequest("Hello"));
  EXPECT_THAT(drawn.request_id, Not(IsEmpty()));
}

TEST_F(ProtocolTest, NamesEveryWrongField) {
  v1::GenerateRequest request = ChatRequest("Hello");
  request.mutable_sampling()->set_top_p(2);
  request.add_stop("");
  const Reply reply = Ask(cluster_->stub(), request);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kInvalidArgument);
  std::string fields;
  for (const FieldViolation& violation : GetFieldViolations(reply.status)) {
    absl::StrAppend(&fields, violation.field, " ");
  }
  EXPECT_THAT(fields, HasSubstr("sampling.top_p"));
  EXPECT_THAT(fields, HasSubstr("stop[0]"));
}

TEST_F(ProtocolTest, RefusesUnknownRoles) {
  v1::GenerateRequest request = ChatRequest("Hello");
  request.mutable_conversation()->mutable_messages(0)->set_role("wizard");
  EXPECT_THAT(
      Ask(cluster_->stub(), request).status,
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("wizard")));
}

TEST_F(ProtocolTest, RefusesAHundredThousandStopStrings) {
  v1::GenerateRequest request = ChatRequest("Hello");
  for (int i = 0; i < 100'000; ++i) request.add_stop("stop");
  EXPECT_THAT(Ask(cluster_->stub(), request).status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("stop")));
}

TEST_F(ProtocolTest, CountsADocumentOfFiveMegabytes) {
  std::string document;
  while (document.size() < 5'000'000) {
    absl::StrAppend(&document, "Line ", document.size(), " of a long text.\n");
  }
  const auto count = Count(TextRequest(document));
  ASSERT_OK(count);
  EXPECT_GT(count->prompt_tokens(), 1'000'000u);
  EXPECT_THAT(Ask(cluster_->stub(), TextRequest(document)).status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(absl::StrCat(count->max_context_tokens()))));
}

TEST_F(ProtocolTest, StopsBeforeAStopString) {
  v1::GenerateRequest request =
      ChatRequest(absl::StrCat(DocumentWithFact(512, 50), kQuestion));
  request.add_stop("KESTREL");
  const Reply reply = Ask(cluster_->stub(), request);
  ASSERT_OK(reply.status);
  EXPECT_EQ(reply.completed.finish_reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(reply.completed.stop_string(), "KESTREL");
  EXPECT_THAT(reply.text, HasSubstr("71-"));
  EXPECT_THAT(reply.text, Not(HasSubstr("K")));
}

TEST_F(ProtocolTest, StopsAtMaxTokens) {
  v1::GenerateRequest request = EndlessRequest(5);
  const Reply reply = Ask(cluster_->stub(), request);
  ASSERT_OK(reply.status);
  EXPECT_EQ(reply.completed.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(reply.token_ids.size(), 5u);
}

TEST_F(ProtocolTest, RepeatsItselfWithTheSameSeed) {
  v1::GenerateRequest request = EndlessRequest(40);
  request.mutable_sampling()->set_temperature(50);
  const Reply first = Ask(cluster_->stub(), request);
  ASSERT_OK(first.status);
  request.mutable_sampling()->set_seed(first.completed.seed());
  EXPECT_EQ(Ask(cluster_->stub(), request).token_ids, first.token_ids);
  request.mutable_sampling()->set_seed(first.completed.seed() + 1);
  EXPECT_NE(Ask(cluster_->stub(), request).token_ids, first.token_ids);
}

TEST_F(ProtocolTest, ShowsMetricsOfBothSides) {
  ASSERT_OK(Ask(cluster_->stub(), ChatRequest("Hello")).status);
  EXPECT_THAT(MetricsPage(cluster_->router().metrics),
              HasSubstr("lapidary_router_"));
  EXPECT_THAT(MetricsPage(cluster_->worker().metrics),
              HasSubstr("lapidary_worker_"));
}

}  // namespace
}  // namespace lapidary
