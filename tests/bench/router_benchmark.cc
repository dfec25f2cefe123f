// What a request costs the router, in CPU time of all its threads: from the
// bytes of the request to the end of the stream, over real gRPC on both sides.
// The client's and the group's share is in it, since they run in this process.
//
//   bazel run -c opt //tests/bench:router_benchmark -- DIRECTORY
//
// DIRECTORY holds config.json, generation_config.json and tokenizer.json.

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "benchmark/benchmark.h"
#include "common/model_files.h"
#include "glog/logging.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"
#include "router/router.h"
#include "router/rpc/prompt_builder.h"

namespace lapidary {
namespace {

constexpr int kPromptTokens = 100000;

// Answers every request with one token.
class OneTokenWorker final : public v1::Worker::Service {
 public:
  explicit OneTokenWorker(ModelDigests digests)
      : digests_(std::move(digests)) {}

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest*,
                        v1::DescribeResponse* response) override {
    response->set_protocol_version(1);
    response->set_config_digest(digests_.config);
    response->set_tokenizer_digest(digests_.tokenizer);
    response->set_max_context_tokens(1 << 20);
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest*,
                     grpc::ServerWriter<v1::GroupState>* writer) override {
    while (!context->IsCancelled() && writer->Write({}))
      absl::SleepFor(absl::Milliseconds(500));
    return grpc::Status::OK;
  }

  grpc::Status Run(grpc::ServerContext*, const v1::RunRequest*,
                   grpc::ServerWriter<v1::RunResponse>* writer) override {
    v1::RunResponse response;
    response.mutable_tokens()->add_token_ids(1000);
    writer->Write(response);
    response.mutable_finished()->set_reason(v1::FINISH_REASON_LENGTH);
    writer->Write(response);
    return grpc::Status::OK;
  }

 private:
  const ModelDigests digests_;
};

// A group, a router, and a client of it.
class Bench {
 public:
  explicit Bench(const std::string& directory)
      : worker_(DigestModelFiles(directory).value()) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&worker_);
    server_ = builder.BuildAndStart();
    RouterOptions options;
    options.model = directory;
    options.groups = absl::StrCat("127.0.0.1:", port);
    options.listen = "127.0.0.1:0";
    router_ = Router::Start(options).value();
    stub_ = v1::Inference::NewStub(grpc::CreateChannel(
        router_->address(), grpc::InsecureChannelCredentials()));
  }

  const ServedModel& model() const { return router_->model(); }

  void Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) continue;
    const grpc::Status status = reader->Finish();
    CHECK(status.ok()) << status.error_message();
  }

  // A text of about kPromptTokens tokens.
  v1::GenerateRequest TextRequest() const {
    std::string text;
    for (int i = 0; text.size() < 4 * kPromptTokens; ++i)
      absl::StrAppend(&text, "Clause ", i, ": the tenant keeps the key. ");
    v1::GenerateRequest request;
    request.mutable_text()->set_text(std::move(text));
    const size_t tokens = BuildPrompt(request, model()).value().tokens.size();
    std::string& all = *request.mutable_text()->mutable_text();
    all.resize(all.size() * kPromptTokens / tokens);
    return request;
  }

  v1::GenerateRequest TokenRequest() const {
    v1::GenerateRequest request;
    for (int i = 0; i < kPromptTokens; ++i)
      request.mutable_token_ids()->add_ids(1000 + i % 5000);
    return request;
  }

 private:
  OneTokenWorker worker_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

Bench* bench = nullptr;

void BM_Text(benchmark::State& state) {
  const v1::GenerateRequest request = bench->TextRequest();
  for (auto _ : state) bench->Generate(request);
}

void BM_TextTokenizedOnly(benchmark::State& state) {
  const v1::GenerateRequest request = bench->TextRequest();
  size_t tokens = 0;
  for (auto _ : state)
    tokens = BuildPrompt(request, bench->model()).value().tokens.size();
  state.counters["prompt_tokens"] = static_cast<double>(tokens);
}

void BM_TokenIds(benchmark::State& state) {
  const v1::GenerateRequest request = bench->TokenRequest();
  for (auto _ : state) bench->Generate(request);
}

BENCHMARK(BM_Text)->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_TextTokenizedOnly)
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_TokenIds)->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  CHECK_EQ(argc, 2) << "needs the model's directory";
  lapidary::Bench bench(argv[1]);
  lapidary::bench = &bench;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
