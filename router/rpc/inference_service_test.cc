// The client API over a real connection, with a clock that the test moves, a
// pool that it can hold up, and groups that it plays.

#include "router/rpc/inference_service.h"

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/grpc_status.h"
#include "common/metrics.h"
#include "common/testing/fake_clock.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "router/core/progress_pace.h"
#include "router/rpc/router_server.h"
#include "router/rpc/served_model.h"
#include "tests/fakes/fake_worker_client.h"
#include "tests/fakes/model_directory.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

v1::GenerateRequest TextRequest() {
  v1::GenerateRequest request;
  request.mutable_text()->set_text("Once upon a time");
  return request;
}

// One Generate call, read as it comes.
class Call {
 public:
  explicit Call(v1::Inference::Stub& stub)
      : reader_(stub.Generate(&context_, TextRequest())) {}

  // The next message.
  v1::GenerateResponse Next() {
    v1::GenerateResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    return response;
  }

  // Reads to the end.
  absl::Status Finish() {
    v1::GenerateResponse response;
    while (reader_->Read(&response)) {
      if (response.has_progress()) ++num_progress_;
      if (response.has_completed()) completed_ = response.completed();
    }
    return FromGrpcStatus(reader_->Finish());
  }

  // What Finish() read.
  int num_progress() const { return num_progress_; }
  const v1::Completed& completed() const { return completed_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  int num_progress_ = 0;
  v1::Completed completed_;
};

class InferenceServiceTest : public ::testing::Test {
 protected:
  // Serves before `num_groups` groups, and waits until they are ready.
  void Serve(int num_groups, RouterServer::Options options = {}) {
    RouterCore::Options core;
    core.registry.config_digest = model_->digests.config;
    core.registry.tokenizer_digest = model_->digests.tokenizer;
    std::vector<std::unique_ptr<WorkerClient>> clients;
    for (int i = 0; i < num_groups; ++i) {
      core.registry.addresses.push_back(absl::StrCat("group:", i + 1));
      groups_.push_back(std::make_unique<FakeGroup>(Description()));
      clients.push_back(groups_.back()->NewClient());
    }
    dispatcher_ =
        std::make_unique<Dispatcher>(core, std::move(clients), clock_);
    service_ = std::make_unique<InferenceService>(
        CallEnvironment{.model = *model_,
                        .dispatcher = *dispatcher_,
                        .pool = *pool_,
                        .metrics = metrics_,
                        .clock = clock_,
                        .calls = calls_});
    server_ = RouterServer::Start(options, *service_).value();
    stub_ = v1::Inference::NewStub(grpc::CreateChannel(
        server_->address(), grpc::InsecureChannelCredentials()));
    for (int i = 0; i < num_groups; ++i) {
      while (dispatcher_->snapshot().groups[i].state != GroupState::kReady)
        std::this_thread::yield();
    }
  }

  ~InferenceServiceTest() override {
    server_->Shutdown(absl::ZeroDuration());
    server_.reset();
    pool_.reset();
    dispatcher_.reset();
  }

  v1::DescribeResponse Description() const {
    v1::DescribeResponse description;
    description.set_protocol_version(1);
    description.set_epoch(1);
    description.set_config_digest(model_->digests.config);
    description.set_tokenizer_digest(model_->digests.tokenizer);
    description.set_vocab_size(8192);
    description.set_max_context_tokens(1000);
    return description;
  }

  // Keeps all threads of the pool busy until `go`.
  void HoldPool(std::promise<void>& go) {
    const std::shared_future<void> gone = go.get_future().share();
    for (int i = 0; i < kPoolThreads; ++i)
      EXPECT_OK(pool_->Run(1, [gone] { gone.wait(); }));
    while (pool_->num_waiting() > 0) std::this_thread::yield();
  }

  // Waits until `count` calls are open in the service.
  void AwaitCalls(int count) const {
    while (calls_.count() != count) std::this_thread::yield();
  }

  static constexpr int kPoolThreads = 2;

  ModelDirectory directory_;
  std::unique_ptr<const ServedModel> model_ =
      ServedModel::Load(directory_.path()).value();
  FakeClock clock_;
  Metrics registry_;
  RouterMetrics metrics_{registry_};
  CallCounter calls_;
  std::unique_ptr<TokenizePool> pool_ = std::make_unique<TokenizePool>(
      TokenizePool::Options{.num_threads = kPoolThreads});
  std::vector<std::unique_ptr<FakeGroup>> groups_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<RouterServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, SendsProgressWheneverItsTimeHasCome) {
  Serve(1);
  Call call(*stub_);
  const auto run = groups_[0]->NextRun();
  run->SendProgress(1);
  EXPECT_EQ(call.Next().progress().prefilled_tokens(), 1u);
  // The group says nothing more; the router does.
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(ProgressPace::kSilence);
    EXPECT_EQ(call.Next().progress().prefilled_tokens(), 1u);
  }
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.num_progress(), 0);
}

TEST_F(InferenceServiceTest, SendsProgressWhileTheRequestWaitsForThePool) {
  Serve(1);
  std::promise<void> go;
  HoldPool(go);
  Call call(*stub_);
  AwaitCalls(1);
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(ProgressPace::kSilence);
    const v1::GenerateResponse response = call.Next();
    ASSERT_TRUE(response.has_progress());
    EXPECT_TRUE(response.progress().queued());
    EXPECT_EQ(response.progress().prompt_tokens(), 0u);
  }
  go.set_value();
  groups_[0]->NextRun()->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
}

TEST_F(InferenceServiceTest, AFullGroupsRequestGoesToAnother) {
  Serve(2);
  Call call(*stub_);
  groups_[0]->NextRun()->stream().End(
      absl::ResourceExhaustedError("1024 wait"));
  const auto run = groups_[1]->NextRun();
  ASSERT_NE(run, nullptr);
  run->Finish(v1::FINISH_REASON_LENGTH);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.completed().group(), "group:2");
  EXPECT_THAT(
      registry_.Text(),
      HasSubstr("lapidary_router_refusals_total{cause=\"queue_full\"} 0"));
}

TEST_F(InferenceServiceTest, WhereAllGroupsAreFullItSaysWhenToRetry) {
  Serve(2);
  Call call(*stub_);
  for (const auto& group : groups_)
    group->NextRun()->stream().End(absl::ResourceExhaustedError("1024 wait"));
  const absl::Status status = call.Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("group group:2: 1024 wait")));
  EXPECT_NE(GetRetryDelay(status), std::nullopt);
  EXPECT_THAT(
      registry_.Text(),
      HasSubstr("lapidary_router_refusals_total{cause=\"queue_full\"} 1"));
}

TEST_F(InferenceServiceTest, ACancelledCountIsNotTokenized) {
  Serve(1);
  std::promise<void> go;
  HoldPool(go);
  grpc::ClientContext context;
  const v1::GenerateRequest request = TextRequest();
  v1::CountTokensResponse response;
  std::promise<grpc::Status> done;
  stub_->async()->CountTokens(
      &context, &request, &response,
      [&done](grpc::Status status) { done.set_value(std::move(status)); });
  AwaitCalls(1);
  context.TryCancel();
  EXPECT_EQ(done.get_future().get().error_code(), grpc::StatusCode::CANCELLED);
  AwaitCalls(0);
  go.set_value();
  pool_.reset();  // Runs what waits.
  EXPECT_THAT(registry_.Text(),
              HasSubstr("lapidary_router_tokenize_seconds_count 0"));
}

TEST_F(InferenceServiceTest, CountsTokens) {
  Serve(1);
  grpc::ClientContext context;
  v1::CountTokensResponse response;
  ASSERT_OK(
      FromGrpcStatus(stub_->CountTokens(&context, TextRequest(), &response)));
  EXPECT_EQ(response.prompt_tokens(),
            model_->tokenizer->Encode("Once upon a time").size() + 1);  // <bos>
  EXPECT_EQ(response.max_context_tokens(), 1000u);
}

TEST_F(InferenceServiceTest, AConnectionsCallsBeyondTheBoundWaitForIt) {
  Serve(1, {.max_streams = 1});
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i)
    clients.emplace_back([this] { EXPECT_OK(Call(*stub_).Finish()); });
  for (size_t i = 0; i < clients.size(); ++i) {
    const auto run = groups_[0]->NextRun();
    if (i == 0) {
      EXPECT_EQ(calls_.count(), 1);
    }
    run->Finish(v1::FINISH_REASON_LENGTH);
  }
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace lapidary
