#include "router/rpc/grpc_worker_client.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/bounded_queue.h"
#include "common/testing/status_matchers.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"

namespace lapidary {
namespace {

// Counts up to max_tokens, or on and on if that is 0.
class CountingWorker final : public v1::Worker::Service {
 public:
  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest*,
                        v1::DescribeResponse* response) override {
    response->set_epoch(42);
    return grpc::Status::OK;
  }

  grpc::Status Run(grpc::ServerContext* context, const v1::RunRequest* request,
                   grpc::ServerWriter<v1::RunResponse>* writer) override {
    for (uint32_t i = 0; i < request->max_tokens() || !request->max_tokens();
         ++i) {
      v1::RunResponse response;
      response.mutable_tokens()->add_token_ids(i);
      if (!writer->Write(response)) break;
    }
    const auto& metadata = context->client_metadata();
    const auto id = metadata.find("x-request-id");
    EXPECT_NE(id, metadata.end());
    static_cast<void>(ended_.TryPush(context->IsCancelled()));
    return grpc::Status::OK;
  }

  BoundedQueue<bool>& ended() { return ended_; }

 private:
  BoundedQueue<bool> ended_{10};  // Whether a run was cancelled.
};

class GrpcWorkerClientTest : public ::testing::Test {
 protected:
  GrpcWorkerClientTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&worker_);
    server_ = builder.BuildAndStart();
    Connect();
  }

  void Connect() {
    client_ = NewGrpcWorkerClient(absl::StrCat("127.0.0.1:", port_), {});
  }

  // Runs up to `max_tokens`.
  std::shared_ptr<WorkerStream> Run(uint32_t max_tokens) {
    v1::RunRequest request;
    request.set_request_id("r1");
    request.set_max_tokens(max_tokens);
    return client_->Run(
        request, absl::InfiniteFuture(),
        {.on_message =
             [this](v1::RunResponse& response) {
               EXPECT_TRUE(tokens_.TryPush(response.tokens().token_ids(0)));
             },
         .on_done =
             [this](const absl::Status& status) {
               EXPECT_TRUE(done_.TryPush(status));
             }});
  }

  CountingWorker worker_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  BoundedQueue<uint32_t> tokens_{1000};
  BoundedQueue<absl::Status> done_{10};
  std::unique_ptr<WorkerClient> client_;
};

TEST_F(GrpcWorkerClientTest, Describes) {
  BoundedQueue<absl::StatusOr<v1::DescribeResponse>> result(1);
  client_->Describe(absl::Seconds(10), [&](const auto& response) {
    EXPECT_TRUE(result.TryPush(response));
  });
  const auto response = *result.Pop();
  ASSERT_OK(response);
  EXPECT_EQ(response->epoch(), 42u);
}

TEST_F(GrpcWorkerClientTest, ReadsWhenAskedTo) {
  const auto run = Run(2);
  run->ReadNext();
  EXPECT_EQ(tokens_.Pop(), 0u);
  run->ReadNext();
  EXPECT_EQ(tokens_.Pop(), 1u);
  run->ReadNext();
  EXPECT_OK(*done_.Pop());
}

TEST_F(GrpcWorkerClientTest, CancelsAStreamThatIsNotBeingRead) {
  const auto run = Run(0);
  run->ReadNext();
  EXPECT_EQ(tokens_.Pop(), 0u);
  run->Cancel();
  EXPECT_THAT(*done_.Pop(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(*worker_.ended().Pop());
}

TEST_F(GrpcWorkerClientTest, CancelsAStreamThatIsBeingRead) {
  const auto run = Run(0);
  run->ReadNext();
  run->Cancel();
  EXPECT_THAT(*done_.Pop(), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(GrpcWorkerClientTest, DestructionEndsWhatRuns) {
  Run(0)->ReadNext();
  client_.reset();
  EXPECT_THAT(*done_.Pop(), StatusIs(absl::StatusCode::kCancelled));
}

// Whether a read is under way or not, and however far gRPC's thread is with a
// call's end.
TEST_F(GrpcWorkerClientTest, DestructionEndsWhatRunsAtAnyMoment) {
  constexpr int kRepeats = 300;
  for (int i = 0; i < kRepeats; ++i) {
    Connect();
    Run(0)->ReadNext();
    client_.reset();
    EXPECT_THAT(*done_.Pop(), StatusIs(absl::StatusCode::kCancelled));
  }
}

TEST_F(GrpcWorkerClientTest, AGroupThatIsNotThereIsUnavailable) {
  const auto nobody = NewGrpcWorkerClient("127.0.0.1:1", {});
  BoundedQueue<absl::Status> result(1);
  nobody->Describe(absl::Seconds(10), [&](const auto& response) {
    EXPECT_TRUE(result.TryPush(response.status()));
  });
  EXPECT_THAT(*result.Pop(), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace lapidary
