// The router as its clients see it: a real gRPC server on loopback, groups
// played by the test.

#include "router/router.h"

#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "tests/fakes/fake_worker_client.h"
#include "tests/fakes/model_directory.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kContext = 100000;

v1::GenerateRequest TextRequest(const std::string& text) {
  v1::GenerateRequest request;
  request.mutable_text()->set_text(text);
  return request;
}

v1::GenerateRequest ChatRequest(const std::string& text) {
  v1::GenerateRequest request;
  v1::Message& message = *request.mutable_conversation()->add_messages();
  message.set_role("user");
  message.add_content()->set_text(text);
  return request;
}

// One Generate call, read as it comes.
class Call {
 public:
  Call(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
       const std::string& request_id = "",
       absl::Duration deadline = absl::Seconds(60)) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    if (!request_id.empty()) context_.AddMetadata("x-request-id", request_id);
    reader_ = stub.Generate(&context_, request);
  }

  // The next delta; an empty one at the end.  Skips progress.
  v1::Delta NextDelta() {
    while (reader_->Read(&response_)) {
      if (response_.has_delta()) return response_.delta();
      if (response_.has_completed()) completed_ = response_.completed();
    }
    return {};
  }

  // Reads to the end.
  absl::Status Finish() {
    while (reader_->Read(&response_)) {
      if (response_.has_delta()) text_ += response_.delta().text();
      if (response_.has_completed()) completed_ = response_.completed();
    }
    return FromGrpcStatus(reader_->Finish());
  }

  void Cancel() { context_.TryCancel(); }

  std::string trailer(const std::string& key) const {
    const auto& metadata = context_.GetServerTrailingMetadata();
    const auto it = metadata.find(key);
    return it == metadata.end()
               ? ""
               : std::string(it->second.data(), it->second.size());
  }

  const std::string& text() const { return text_; }
  const v1::Completed& completed() const { return completed_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  v1::GenerateResponse response_;
  std::string text_;
  v1::Completed completed_;
};

class RouterTest : public ::testing::Test {
 protected:
  v1::DescribeResponse Description(uint64_t epoch) const {
    const ModelDigests digests = DigestModelFiles(model_.path()).value();
    v1::DescribeResponse description;
    description.set_protocol_version(1);
    description.set_epoch(epoch);
    description.set_config_digest(digests.config);
    description.set_tokenizer_digest(digests.tokenizer);
    description.set_vocab_size(8192);
    description.set_max_context_tokens(kContext);
    description.set_ranks(1);
    return description;
  }

  FakeGroup& AddGroup(const v1::DescribeResponse& description) {
    groups_.push_back(std::make_unique<FakeGroup>(description));
    return *groups_.back();
  }

  FakeGroup& AddGroup() { return AddGroup(Description(groups_.size() + 1)); }

  void StartRouter() {
    options_.model = model_.path();
    options_.listen = "127.0.0.1:0";
    options_.groups.clear();
    std::vector<std::unique_ptr<WorkerClient>> clients;
    for (size_t i = 0; i < groups_.size(); ++i) {
      absl::StrAppend(&options_.groups, i > 0 ? "," : "", "group:", i + 1);
      clients.push_back(groups_[i]->NewClient());
    }
    auto router = Router::StartWith(options_, std::move(clients));
    ASSERT_OK(router);
    router_ = *std::move(router);
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    stub_ = v1::Inference::NewStub(grpc::CreateCustomChannel(
        router_->address(), grpc::InsecureChannelCredentials(), arguments));
  }

  // A router before one group.
  FakeGroup& StartWithOneGroup() {
    FakeGroup& group = AddGroup();
    StartRouter();
    return group;
  }

  std::vector<int> Tokens(const std::string& text) const {
    const std::vector<TokenId> ids = router_->model().tokenizer->Encode(text);
    return {ids.begin(), ids.end()};
  }

  v1::GetStatusResponse Status() {
    grpc::ClientContext context;
    v1::GetStatusResponse response;
    EXPECT_OK(FromGrpcStatus(stub_->GetStatus(&context, {}, &response)));
    return response;
  }

  // The router counts a request off a moment after its client has heard.
  void WaitUntilNothingRuns() {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (Status().running_requests() > 0 && absl::Now() < deadline) {
      std::this_thread::yield();
    }
    EXPECT_EQ(Status().running_requests(), 0u);
  }

  // Asks until the group at `index` is in `state`.
  void WaitForState(int index, const std::string& state) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (Status().groups(index).state() != state && absl::Now() < deadline) {
      std::this_thread::yield();
    }
    ASSERT_EQ(Status().groups(index).state(), state);
  }

  ModelDirectory model_;
  RouterOptions options_;
  std::vector<std::unique_ptr<FakeGroup>> groups_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(RouterTest, StreamsTheTextOfTheTokens) {
  FakeGroup& group = StartWithOneGroup();
  v1::GenerateRequest request = TextRequest("Once upon");
  request.set_max_tokens(100);
  Call call(*stub_, request, "my-id-1");
  const auto run = group.NextRun();
  EXPECT_EQ(run->request().request_id(), "my-id-1");
  EXPECT_EQ(run->request().max_tokens(), 100u);
  EXPECT_EQ(run->request().prompt_token_ids(0), 2u);  // <bos>
  const std::vector<int> ids = Tokens(" a time");
  run->SendTokens(ids);
  const v1::Delta delta = call.NextDelta();
  EXPECT_EQ(delta.text(), " a time");
  EXPECT_EQ(
      std::vector<int>(delta.token_ids().begin(), delta.token_ids().end()),
      ids);
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.trailer("x-request-id"), "my-id-1");
  const v1::Completed& completed = call.completed();
  EXPECT_EQ(completed.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(completed.request_id(), "my-id-1");
  EXPECT_EQ(completed.group(), "group:1");
  EXPECT_EQ(completed.usage().output_tokens(), ids.size());
  EXPECT_EQ(completed.usage().prompt_tokens(),
            static_cast<uint32_t>(run->request().prompt_token_ids_size()));
  EXPECT_GT(completed.timings().total_seconds(), 0);
}

TEST_F(RouterTest, FillsInTheModelsDefaults) {
  FakeGroup& group = StartWithOneGroup();
  v1::GenerateRequest request = ChatRequest("Hi");
  request.mutable_sampling()->set_top_k(7);
  Call call(*stub_, request);
  const auto run = group.NextRun();
  const v1::Sampling& sampling = run->request().sampling();
  EXPECT_EQ(sampling.top_k(), 7u);
  EXPECT_TRUE(sampling.has_temperature());
  EXPECT_TRUE(sampling.has_top_p());
  EXPECT_TRUE(sampling.has_min_p());
  EXPECT_TRUE(sampling.has_repetition_penalty());
  EXPECT_TRUE(sampling.has_seed());
  EXPECT_FALSE(sampling.has_logprobs());
  EXPECT_EQ(run->request().max_tokens() +
                static_cast<uint32_t>(run->request().prompt_token_ids_size()),
            static_cast<uint32_t>(kContext));
  EXPECT_THAT(run->request().stop_token_ids(), testing::Contains(106u));
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.completed().seed(), sampling.seed());
}

TEST_F(RouterTest, EndsAtAStopStringAndCancelsTheRun) {
  FakeGroup& group = StartWithOneGroup();
  v1::GenerateRequest request = TextRequest("x");
  request.add_stop("END");
  Call call(*stub_, request);
  const auto run = group.NextRun();
  run->SendTokens(Tokens("good EN"));
  run->SendTokens(Tokens("D bad"));
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.text(), "good ");
  EXPECT_EQ(call.completed().finish_reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(call.completed().stop_string(), "END");
  EXPECT_TRUE(run->stream().WaitForCancel(absl::Seconds(10)));
}

TEST_F(RouterTest, KeepsLogprobsWithTheirTokens) {
  FakeGroup& group = StartWithOneGroup();
  v1::GenerateRequest request = TextRequest("x");
  request.mutable_sampling()->set_logprobs(0);
  request.add_stop_token_ids(106);
  Call call(*stub_, request);
  const auto run = group.NextRun();
  run->SendTokens({300, 301, 106, 302});
  const v1::Delta delta = call.NextDelta();
  ASSERT_EQ(delta.logprobs_size(), 3);  // What follows the stop token is gone.
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(delta.logprobs(i).chosen().token_id(), delta.token_ids(i));
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.completed().stop_token_id(), 106u);
}

TEST_F(RouterTest, NamesEveryBadField) {
  StartWithOneGroup();
  v1::GenerateRequest request = ChatRequest("Hi");
  request.mutable_conversation()->mutable_messages(0)->set_role("robot");
  request.mutable_sampling()->set_temperature(
      std::numeric_limits<float>::quiet_NaN());
  request.mutable_sampling()->set_top_p(2);
  request.set_priority(11);
  const absl::Status status = Call(*stub_, request, "bad-1").Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetFieldViolations(status))
    fields.push_back(violation.field);
  EXPECT_THAT(fields, ElementsAre("conversation.messages[0].role",
                                  "sampling.temperature", "sampling.top_p",
                                  "priority"));
  EXPECT_EQ(GetRequestId(status), "bad-1");
}

TEST_F(RouterTest, NamesTheFieldThatIsNotUtf8) {
  StartWithOneGroup();
  const absl::Status status = Call(*stub_, ChatRequest("ok \xff\xfe")).Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_EQ(GetFieldViolations(status).size(), 1u);
  EXPECT_EQ(GetFieldViolations(status)[0].field,
            "conversation.messages[0].content[0].text");
}

TEST_F(RouterTest, RefusesAHundredThousandStopStringsCheaply) {
  StartWithOneGroup();
  v1::GenerateRequest request = TextRequest("x");
  for (int i = 0; i < 100000; ++i) request.add_stop(absl::StrCat("s", i));
  const absl::Status status = Call(*stub_, request).Finish();
  ASSERT_EQ(GetFieldViolations(status).size(), 1u);
  EXPECT_EQ(GetFieldViolations(status)[0].field, "stop");
  EXPECT_EQ(GetFieldViolations(status)[0].description,
            "expected at most 64, got 100000");
}

TEST_F(RouterTest, TakesADocumentOfFiveMegabytes) {
  FakeGroup& group = StartWithOneGroup();
  std::string document;
  while (document.size() < (5 << 20))
    absl::StrAppend(&document, "Line ", document.size(), " of the text.\n");
  grpc::ClientContext context;
  v1::CountTokensResponse count;
  ASSERT_OK(FromGrpcStatus(
      stub_->CountTokens(&context, TextRequest(document), &count)));
  EXPECT_GT(count.prompt_tokens(), 1000000u);
  // It exceeds the model's context, and says so.
  const absl::Status status = Call(*stub_, TextRequest(document)).Finish();
  ASSERT_EQ(GetFieldViolations(status).size(), 1u);
  EXPECT_EQ(GetFieldViolations(status)[0].field, "prompt");
  EXPECT_THAT(GetFieldViolations(status)[0].description,
              HasSubstr(absl::StrCat(count.prompt_tokens())));
  // Others are served as ever.
  Call call(*stub_, TextRequest("x"));
  group.NextRun()->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
}

TEST_F(RouterTest, RefusesAMessageAboveTheBound) {
  options_.max_message_bytes = 1 << 20;
  StartWithOneGroup();
  EXPECT_THAT(Call(*stub_, TextRequest(std::string(2 << 20, 'x'))).Finish(),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(RouterTest, CancelsTheRunOfAClientThatVanishes) {
  FakeGroup& group = StartWithOneGroup();
  Call call(*stub_, TextRequest("x"));
  const auto run = group.NextRun();
  run->SendTokens({300});
  call.NextDelta();
  call.Cancel();
  EXPECT_TRUE(run->stream().WaitForCancel(absl::Seconds(10)));
  EXPECT_THAT(call.Finish(), StatusIs(absl::StatusCode::kCancelled));
  WaitUntilNothingRuns();
}

TEST_F(RouterTest, PassesTheDeadlineOn) {
  FakeGroup& group = StartWithOneGroup();
  const absl::Time before = absl::Now();
  Call call(*stub_, TextRequest("x"), "", absl::Seconds(1));
  const auto run = group.NextRun();
  EXPECT_LT(run->deadline(), before + absl::Seconds(5));
  EXPECT_THAT(call.Finish(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(run->stream().WaitForCancel(absl::Seconds(10)));
}

TEST_F(RouterTest, ReadsNoMoreFromTheGroupThanASlowClientTakes) {
  FakeGroup& group = StartWithOneGroup();
  Call slow(*stub_, TextRequest("x"));
  const auto run = group.NextRun();
  // Far more than the windows of HTTP/2 and the router's queue hold.
  constexpr int kMessages = 200;
  constexpr int kTokens = 20000;
  const int token = Tokens(" the").front();
  for (int i = 0; i < kMessages; ++i)
    run->SendTokens(std::vector<int>(kTokens, token));
  run->Finish(v1::FINISH_REASON_LENGTH);
  // Meanwhile another client is served.
  Call quick(*stub_, TextRequest("y"));
  group.NextRun()->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(quick.Finish());
  EXPECT_LT(run->stream().num_reads(), kMessages / 2);
  // The slow one still gets everything.
  EXPECT_OK(slow.Finish());
  EXPECT_EQ(slow.completed().usage().output_tokens(), kMessages * kTokens);
  EXPECT_EQ(slow.text().size(),
            router_->model().tokenizer->TokenBytes(token).size() * kMessages *
                kTokens);
}

TEST_F(RouterTest, ALostGroupFailsItsRequestAloneAndSaysWhenToRetry) {
  FakeGroup& first = AddGroup();
  FakeGroup& second = AddGroup();
  StartRouter();
  WaitForState(0, "ready");
  WaitForState(1, "ready");
  Call lost(*stub_, TextRequest("x"));
  const auto lost_run = first.NextRun();
  Call other(*stub_, TextRequest("y"));
  const auto other_run = second.NextRun();
  ASSERT_NE(other_run, nullptr);
  lost_run->SendTokens({300});
  lost.NextDelta();
  first.Disconnect();
  lost_run->stream().End(absl::UnavailableError("socket closed"));
  const absl::Status status = lost.Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("group:1 was lost")));
  EXPECT_NE(GetRetryDelay(status), std::nullopt);
  other_run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(other.Finish());
}

TEST_F(RouterTest, ARunThatIsLostBeforeItsFirstTokenStartsAgain) {
  FakeGroup& first = AddGroup();
  FakeGroup& second = AddGroup();
  StartRouter();
  WaitForState(0, "ready");
  WaitForState(1, "ready");
  Call call(*stub_, TextRequest("x"));
  const auto run = first.NextRun();
  first.Disconnect();
  run->stream().End(absl::UnavailableError("socket closed"));
  const auto again = second.NextRun();
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->request().prompt_token_ids_size(),
            run->request().prompt_token_ids_size());
  EXPECT_EQ(again->request().sampling().seed(),
            run->request().sampling().seed());
  again->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.completed().group(), "group:2");
}

TEST_F(RouterTest, TwoGroupsShareTheRequests) {
  FakeGroup& first = AddGroup();
  FakeGroup& second = AddGroup();
  StartRouter();
  WaitForState(0, "ready");
  WaitForState(1, "ready");
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 4; ++i)
    calls.push_back(std::make_unique<Call>(*stub_, TextRequest("x")));
  // None ends before all are placed: a group with less to do gets more.
  std::vector<std::shared_ptr<FakeRun>> runs;
  for (FakeGroup* group : {&first, &first, &second, &second}) {
    runs.push_back(group->NextRun());
    ASSERT_NE(runs.back(), nullptr);
  }
  for (const auto& run : runs) run->Finish(v1::FINISH_REASON_LENGTH);
  for (const auto& call : calls) EXPECT_OK(call->Finish());
}

TEST_F(RouterTest, RefusesAGroupThatServesAnotherModel) {
  v1::DescribeResponse description = Description(1);
  description.set_config_digest("0123");
  AddGroup(description);
  options_.max_wait_for_group = absl::Milliseconds(300);
  StartRouter();
  WaitForState(0, "refused");
  EXPECT_THAT(Status().groups(0).reason(), HasSubstr("0123"));
  EXPECT_THAT(Status().groups(0).reason(),
              HasSubstr(router_->model().digests.config));
  const absl::Status status = Call(*stub_, TextRequest("x")).Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("group:1 is refused")));
  EXPECT_NE(GetRetryDelay(status), std::nullopt);
}

TEST_F(RouterTest, ARequestWaitsForAGroupToCome) {
  FakeGroup& group = AddGroup();
  group.Disconnect();
  StartRouter();
  Call call(*stub_, TextRequest("x"));
  while (Status().waiting_requests() == 0) std::this_thread::yield();
  group.Connect();
  const auto run = group.NextRun();
  ASSERT_NE(run, nullptr);
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
}

TEST_F(RouterTest, ATokenBeyondTheVocabularyIsTheGroupsError) {
  FakeGroup& group = StartWithOneGroup();
  Call call(*stub_, TextRequest("x"));
  group.NextRun()->SendTokens({9999});
  EXPECT_THAT(call.Finish(),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("9999")));
}

TEST_F(RouterTest, DescribesTheModel) {
  model_.Write("chat_template.jinja", "{{ another }}");
  StartWithOneGroup();
  WaitForState(0, "ready");
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_OK(FromGrpcStatus(stub_->GetModel(&context, {}, &model)));
  EXPECT_EQ(model.model_type(), "gemma4_unified");
  EXPECT_EQ(model.vocab_size(), 8192u);
  EXPECT_EQ(model.max_context_tokens(), static_cast<uint32_t>(kContext));
  EXPECT_EQ(model.chat_template(), "large");
  EXPECT_THAT(model.chat_template_warning(),
              HasSubstr("neither of the published ones"));
  EXPECT_THAT(model.stop_token_ids(), testing::Contains(106u));
}

TEST_F(RouterTest, DrainsBeforeItGoes) {
  FakeGroup& group = StartWithOneGroup();
  Call call(*stub_, TextRequest("x"));
  const auto run = group.NextRun();
  std::thread drain([this] { router_->Drain(); });
  absl::Status refused;
  do {
    refused =
        Call(*stub_, TextRequest("y"), "", absl::Milliseconds(200)).Finish();
  } while (absl::IsDeadlineExceeded(refused));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable,
                                HasSubstr("shutting down")));
  run->SendTokens({300});
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  drain.join();
}

TEST_F(RouterTest, SaysThatAPortIsInUse) {
  StartWithOneGroup();
  RouterOptions second = options_;
  second.listen = router_->address();
  std::vector<std::unique_ptr<WorkerClient>> clients;
  clients.push_back(groups_[0]->NewClient());
  EXPECT_THAT(
      Router::StartWith(second, std::move(clients)),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr(router_->address())));
}

}  // namespace
}  // namespace lapidary
