#include "worker/rpc/worker_service.h"

#include "common/tokens.h"
#include "common/version.h"
#include "glog/logging.h"
#include "worker/rpc/run_call.h"
#include "worker/rpc/watch_call.h"

namespace lapidary {
namespace {

constexpr int kProtocolVersion = 1;

// What worker.proto promises.
static_assert(WorkerService::kTickPeriod < absl::Seconds(1));

}  // namespace

WorkerService::WorkerService(const GroupDescription& group, Engine& engine,
                             StateBoard& board, WorkerMetrics& metrics)
    : group_(group),
      limits_{.vocab_size = group.vocab_size,
              .max_context_tokens = group.max_context_tokens},
      engine_(engine),
      board_(board),
      metrics_(metrics) {}

grpc::ServerUnaryReactor* WorkerService::Describe(
    grpc::CallbackServerContext* context, const v1::DescribeRequest*,
    v1::DescribeResponse* response) {
  response->set_protocol_version(kProtocolVersion);
  response->set_epoch(group_.epoch);
  response->set_model_name(group_.model_name);
  response->set_model_type(group_.model_type);
  response->set_config_digest(group_.config_digest);
  response->set_tokenizer_digest(group_.tokenizer_digest);
  response->set_vocab_size(group_.vocab_size);
  response->set_max_context_tokens(group_.max_context_tokens);
  response->set_ranks(static_cast<uint32_t>(group_.ranks.size()));
  response->set_compute(group_.compute);
  response->set_device(group_.device);
  response->set_page_tokens(kPageTokens);
  response->set_version(kVersion);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::RunResponse>* WorkerService::Run(
    grpc::CallbackServerContext* context, const v1::RunRequest* request) {
  return RunCall::Start(*context, *request, limits_, engine_, metrics_,
                        ticker_);
}

grpc::ServerWriteReactor<v1::GroupState>* WorkerService::Watch(
    grpc::CallbackServerContext*, const v1::WatchRequest*) {
  return WatchCall::Start(group_, board_, ticker_);
}

grpc::ServerUnaryReactor* WorkerService::Drain(
    grpc::CallbackServerContext* context, const v1::DrainRequest*,
    v1::DrainResponse* response) {
  LOG(INFO) << "draining: asked to by a caller";
  engine_.Drain();
  const Scheduler::Load load = board_.state().load;
  response->set_running_requests(load.running + load.waiting);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace lapidary
