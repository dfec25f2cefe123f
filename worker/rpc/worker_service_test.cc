// The whole RPC side over a real connection, in front of a scripted model.

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/group_messages.h"
#include "common/group_status.h"
#include "common/grpc_status.h"
#include "common/metrics.h"
#include "common/request_id.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"
#include "worker/engine/engine.h"
#include "worker/engine/group_metrics.h"
#include "worker/engine/state_board.h"
#include "worker/engine/testing/scripted_model.h"
#include "worker/metrics.h"
#include "worker/rpc/worker_server.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int kVocabSize = 1000;
constexpr int kMaxContextTokens = 64 * kPageTokens;

// One Run() from the caller's side.
class Call {
 public:
  Call(v1::Worker::Stub& stub, const v1::RunRequest& request,
       absl::Time deadline = absl::InfiniteFuture()) {
    if (deadline != absl::InfiniteFuture()) {
      context_.set_deadline(absl::ToChronoTime(deadline));
    }
    context_.AddMetadata(kRequestIdKey, "from-metadata");
    stream_ = stub.Run(&context_, request);
  }

  // The next message.  False at the end.
  bool Read() {
    if (!stream_->Read(&message_)) return false;
    if (message_.has_progress()) ++num_progress_;
    for (const uint32_t id : message_.tokens().token_ids()) {
      tokens_.push_back(static_cast<TokenId>(id));
    }
    return true;
  }

  // Reads to the end.
  absl::Status Finish() {
    while (Read()) {
    }
    return FromGrpcStatus(stream_->Finish());
  }

  void Cancel() { context_.TryCancel(); }

  const v1::RunResponse& message() const { return message_; }  // The last.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  int num_progress() const { return num_progress_; }
  std::string TrailingRequestId() const {
    const auto& trailers = context_.GetServerTrailingMetadata();
    const auto it = trailers.find(kRequestIdKey);
    return it == trailers.end()
               ? ""
               : std::string(it->second.data(), it->second.size());
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::RunResponse>> stream_;
  v1::RunResponse message_;
  std::vector<TokenId> tokens_;
  int num_progress_ = 0;
};

class WorkerServiceTest : public ::testing::Test {
 protected:
  WorkerServiceTest() : metrics_(registry_), group_metrics_(registry_) {
    Engine::Options options;
    options.scheduler.max_sequences = 4;
    options.cache = {.num_ranks = 1,
                     .global_pages_per_rank = 64,
                     .window_pages = 32,
                     .window = 100};
    options.vocab_size = kVocabSize;
    engine_ = std::make_unique<Engine>(
        options, model_.run_step(), clock_,
        Engine::Outlets{.metrics = metrics_,
                        .group_metrics = group_metrics_,
                        .board = board_},
        [] {});
    server_options_.group = {.epoch = 42,
                             .model_name = "scripted",
                             .model_type = "gemma4_unified",
                             .config_digest = "c0",
                             .tokenizer_digest = "70",
                             .vocab_size = kVocabSize,
                             .max_context_tokens = kMaxContextTokens,
                             .compute = "fp32",
                             .device = "script",
                             .global_page_bytes = 10,
                             .window_page_bytes = 20,
                             .ranks = {{.host = "north", .device = "script"}}};
    server_ = WorkerServer::Start(server_options_, *engine_, board_, metrics_)
                  .value();
    channel_ = grpc::CreateChannel(server_->address(),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::Worker::NewStub(channel_);
  }

  ~WorkerServiceTest() override { model_.Open(); }

  // The status byte of grpc.health.v1's answer: 1 = SERVING, 2 = NOT_SERVING.
  int Health() {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    const grpc::ByteBuffer request(nullptr, 0);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request,
                   &response,
                   [&done](grpc::Status status) { done.set_value(status); });
    EXPECT_TRUE(done.get_future().get().ok());
    grpc::Slice bytes;
    EXPECT_TRUE(response.DumpToSingleSlice(&bytes).ok());
    EXPECT_EQ(bytes.size(), 2u);  // Field 1, varint.
    return bytes.end()[-1];
  }

  static v1::RunRequest Request(int prompt_tokens, int max_tokens) {
    v1::RunRequest request;
    for (int i = 0; i < prompt_tokens; ++i) request.add_prompt_token_ids(i);
    request.set_max_tokens(max_tokens);
    v1::Sampling& sampling = *request.mutable_sampling();
    sampling.set_temperature(0);
    sampling.set_top_k(0);
    sampling.set_top_p(1);
    sampling.set_min_p(0);
    sampling.set_repetition_penalty(1);
    sampling.set_presence_penalty(0);
    sampling.set_frequency_penalty(0);
    sampling.set_seed(1);
    return request;
  }

  ScriptedModel model_{kVocabSize};
  SystemClock clock_;
  Metrics registry_;
  WorkerMetrics metrics_;
  GroupMetrics group_metrics_;
  StateBoard board_;
  std::unique_ptr<Engine> engine_;
  WorkerServer::Options server_options_;
  std::unique_ptr<WorkerServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Worker::Stub> stub_;
};

TEST_F(WorkerServiceTest, DescribesTheGroup) {
  grpc::ClientContext context;
  v1::DescribeResponse response;
  ASSERT_TRUE(stub_->Describe(&context, {}, &response).ok());
  EXPECT_EQ(response.protocol_version(), 1u);
  EXPECT_EQ(response.epoch(), 42u);
  EXPECT_EQ(response.config_digest(), "c0");
  EXPECT_EQ(response.vocab_size(), 1000u);
  EXPECT_EQ(response.ranks(), 1u);
  EXPECT_EQ(response.page_tokens(), 64u);
}

TEST_F(WorkerServiceTest, StreamsProgressTokensAndTheEnd) {
  Call run(*stub_, Request(/*prompt_tokens=*/10, /*max_tokens=*/3));
  EXPECT_OK(run.Finish());
  EXPECT_GT(run.num_progress(), 0);
  EXPECT_THAT(run.tokens(), ElementsAre(10, 11, 12));
  ASSERT_TRUE(run.message().has_finished());
  EXPECT_EQ(run.message().finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_GT(run.message().finished().prefill_seconds(), 0);
}

TEST_F(WorkerServiceTest, EndsWithTheStopToken) {
  v1::RunRequest request = Request(10, 100);
  request.add_stop_token_ids(12);
  Call run(*stub_, request);
  EXPECT_OK(run.Finish());
  EXPECT_THAT(run.tokens(), ElementsAre(10, 11, 12));
  EXPECT_EQ(run.message().finished().reason(), v1::FINISH_REASON_STOP);
}

TEST_F(WorkerServiceTest, SendsLogprobsWhereAskedFor) {
  v1::RunRequest request = Request(10, 1);
  request.mutable_sampling()->set_logprobs(2);
  Call run(*stub_, request);
  while (run.Read() && run.tokens().empty()) {
  }
  ASSERT_THAT(run.message().tokens().logprobs(), SizeIs(1));
  const v1::PositionLogprobs& logprobs = run.message().tokens().logprobs(0);
  EXPECT_EQ(logprobs.chosen().token_id(), 10u);
  EXPECT_LT(logprobs.chosen().logprob(), 0);
  EXPECT_THAT(logprobs.top(), SizeIs(2));
  EXPECT_OK(run.Finish());
}

TEST_F(WorkerServiceTest, RefusesABadRequestFieldByField) {
  Call run(*stub_, v1::RunRequest());
  const absl::Status status = run.Finish();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(GetFieldViolations(status).front().field, "prompt_token_ids");
  EXPECT_EQ(GetRequestId(status), "from-metadata");
  EXPECT_EQ(metrics_.finished_invalid.Value(), 1);
}

TEST_F(WorkerServiceTest, ReturnsTheRequestId) {
  v1::RunRequest request = Request(10, 1);
  Call from_metadata(*stub_, request);
  EXPECT_OK(from_metadata.Finish());
  EXPECT_EQ(from_metadata.TrailingRequestId(), "from-metadata");
  request.set_request_id("from-request");
  Call from_request(*stub_, request);
  EXPECT_OK(from_request.Finish());
  EXPECT_EQ(from_request.TrailingRequestId(), "from-request");
}

TEST_F(WorkerServiceTest, RepeatsProgressWhileAStepLasts) {
  model_.Hold();
  Call run(*stub_, Request(10, 1));
  while (run.num_progress() < 4) ASSERT_TRUE(run.Read());
  model_.Open();
  EXPECT_OK(run.Finish());
}

TEST_F(WorkerServiceTest, ACancelledCallLeavesTheBatch) {
  model_.Hold();
  Call run(*stub_, Request(10, 2000));
  model_.AwaitHeldStep();
  run.Cancel();
  EXPECT_THAT(run.Finish(), StatusIs(absl::StatusCode::kCancelled));
  model_.Open();
  engine_->Drain();
  EXPECT_OK(engine_->Join());
  EXPECT_EQ(
      metrics_.finished_cancelled.Value() + metrics_.finished_length.Value(),
      1);
  EXPECT_EQ(board_.state().global_pages.used, 0);
}

TEST_F(WorkerServiceTest, ADeadlineEndsTheCall) {
  model_.Hold();
  Call run(*stub_, Request(10, 2000), absl::Now() + absl::Milliseconds(200));
  EXPECT_THAT(run.Finish(), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(WorkerServiceTest, AReaderThatWaitsGetsEverythingLater) {
  // A megabyte of log-probabilities, more than a stream holds on its way.
  v1::RunRequest request = Request(/*prompt_tokens=*/1, /*max_tokens=*/4000);
  request.mutable_sampling()->set_logprobs(20);
  Call slow(*stub_, request);
  Call quick(*stub_, request);
  EXPECT_OK(quick.Finish());
  // The engine is done with both before the slow one has read anything.
  engine_->Drain();
  EXPECT_OK(engine_->Join());
  EXPECT_EQ(metrics_.finished_length.Value(), 2);
  EXPECT_OK(slow.Finish());
  EXPECT_THAT(slow.tokens(), SizeIs(4000));
  EXPECT_EQ(slow.tokens(), quick.tokens());
}

TEST_F(WorkerServiceTest, AFailedStepEndsCallsWithUnavailable) {
  model_.Break(absl::InternalError("device on fire"));
  Call run(*stub_, Request(10, 5));
  EXPECT_THAT(run.Finish(), StatusIs(absl::StatusCode::kUnavailable,
                                     HasSubstr("device on fire")));
}

TEST_F(WorkerServiceTest, DrainRefusesNewRequestsAndFinishesOldOnes) {
  model_.Hold();
  Call run(*stub_, Request(10, 5));
  model_.AwaitHeldStep();
  grpc::ClientContext context;
  v1::DrainResponse response;
  ASSERT_TRUE(stub_->Drain(&context, {}, &response).ok());
  EXPECT_EQ(response.running_requests(), 1u);
  Call late(*stub_, Request(10, 5));
  EXPECT_THAT(late.Finish(), StatusIs(absl::StatusCode::kUnavailable));
  model_.Open();
  EXPECT_OK(run.Finish());
  EXPECT_THAT(run.tokens(), SizeIs(5));
}

TEST_F(WorkerServiceTest, WatchTellsTheStateAtOnceAndOnChange) {
  model_.Hold();
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, {});
  v1::GroupState state;
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.epoch(), 42u);
  EXPECT_EQ(state.sequence(), 1u);
  EXPECT_EQ(state.total_global_pages(), 64u);
  EXPECT_EQ(state.global_page_bytes(), 10u);
  EXPECT_EQ(state.running_requests(), 0u);

  Call run(*stub_, Request(100, 5));
  while (state.running_requests() == 0) ASSERT_TRUE(watch->Read(&state));
  EXPECT_GT(state.used_global_pages(), 0u);
  EXPECT_EQ(state.queued_tokens(), 100u);
  model_.Open();
  EXPECT_OK(run.Finish());
  while (state.running_requests() != 0) ASSERT_TRUE(watch->Read(&state));
  EXPECT_GT(state.prefill_tokens_per_second(), 0);

  engine_->Drain();
  while (!state.draining()) ASSERT_TRUE(watch->Read(&state));
}

TEST_F(WorkerServiceTest, WatchTellsWhatEachRankHolds) {
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, {});
  v1::GroupState state;
  ASSERT_TRUE(watch->Read(&state));
  ASSERT_EQ(state.ranks_size(), 1);
  EXPECT_EQ(FromMessage(state.ranks(0)),
            (RankStatus{.rank = 0,
                        .host = "north",
                        .device = "script",
                        .global_pages = {64, 0, 10},
                        .window_pages = {32, 0, 20}}));
  EXPECT_FALSE(state.has_last_split());
}

TEST_F(WorkerServiceTest, WatchRepeatsItselfEverySecond) {
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, {});
  v1::GroupState state;
  const absl::Time start = absl::Now();
  while (state.sequence() < 3) ASSERT_TRUE(watch->Read(&state));
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
}

TEST_F(WorkerServiceTest, WatchEndsWhenTheEngineHasStopped) {
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, {});
  v1::GroupState state;
  ASSERT_TRUE(watch->Read(&state));
  engine_->Drain();
  while (watch->Read(&state)) {
  }
  EXPECT_TRUE(state.draining());
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(WorkerServiceTest, HealthEndsWithTheDrain) {
  EXPECT_EQ(Health(), 1);
  engine_->Drain();
  EXPECT_EQ(Health(), 2);
}

TEST_F(WorkerServiceTest, TwoServersDoNotShareAPort) {
  server_options_.listen = server_->address();
  EXPECT_THAT(
      WorkerServer::Start(server_options_, *engine_, board_, metrics_),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr(server_->address())));
}

}  // namespace
}  // namespace lapidary
