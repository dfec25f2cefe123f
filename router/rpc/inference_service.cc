#include "router/rpc/inference_service.h"

#include <algorithm>
#include <string>

#include "common/group_messages.h"
#include "common/grpc_status.h"
#include "common/version.h"
#include "router/rpc/call_metadata.h"
#include "router/rpc/count_call.h"
#include "router/rpc/generate_call.h"

namespace lapidary {
namespace {

void FillGroup(const Group& group, v1::GroupStatus& status) {
  status.set_address(group.address);
  status.set_state(std::string(GroupStateName(group.state)));
  status.set_reason(group.reason);
  if (group.description.has_value()) {
    status.set_ranks(static_cast<uint32_t>(group.description->ranks));
    status.set_model_name(group.description->model_name);
    status.set_compute(group.description->compute);
    status.set_device(group.description->device);
  }
  const GroupLoad& load = group.load;
  status.set_running_requests(static_cast<uint32_t>(load.running_requests));
  status.set_waiting_requests(static_cast<uint32_t>(load.waiting_requests));
  status.set_queued_tokens(static_cast<uint64_t>(group.queued_tokens()));
  *status.mutable_global_pages() = ToMessage(load.global_pages);
  *status.mutable_window_pages() = ToMessage(load.window_pages);
  status.set_prefill_tokens_per_second(load.prefill_tokens_per_second);
  status.set_decode_tokens_per_second(load.decode_tokens_per_second);
  for (const RankStatus& rank : load.ranks) {
    *status.add_rank_status() = ToMessage(rank);
  }
  if (load.last_split.prompt_tokens > 0) {
    *status.mutable_last_split() = ToMessage(load.last_split);
  }
  status.set_last_failure(group.last_failure);
}

grpc::Status WithRequestId(absl::Status status, const std::string& request_id) {
  if (!status.ok()) SetRequestId(request_id, status);
  return ToGrpcStatus(status);
}

}  // namespace

InferenceService::InferenceService(const CallEnvironment& environment)
    : environment_(environment), start_(environment.clock.Now()) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return GenerateCall::Start(environment_, *context, *request);
}

grpc::ServerUnaryReactor* InferenceService::CountTokens(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return CountCall::Start(environment_, *context, *request, MaxContextTokens(),
                          *response);
}

grpc::ServerUnaryReactor* InferenceService::GetModel(
    grpc::CallbackServerContext* context, const v1::GetModelRequest*,
    v1::GetModelResponse* response) {
  const ServedModel& model = environment_.model;
  response->set_name(model.name);
  response->set_model_type(model.model_type);
  response->set_vocab_size(static_cast<uint32_t>(model.vocab_size));
  response->set_max_context_tokens(static_cast<uint32_t>(MaxContextTokens()));
  response->set_config_digest(model.digests.config);
  response->set_tokenizer_digest(model.digests.tokenizer);
  response->set_chat_template(
      model.template_variant == TemplateVariant::kLarge ? "large" : "small");
  response->set_chat_template_warning(model.template_warning);
  *response->mutable_default_sampling() = model.default_sampling;
  response->mutable_stop_token_ids()->Add(model.stop_tokens.begin(),
                                          model.stop_tokens.end());
  response->mutable_suppressed_token_ids()->Add(model.suppressed_tokens.begin(),
                                                model.suppressed_tokens.end());
  absl::Status status;
  const std::string request_id = TakeRequestId(*context, status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(WithRequestId(status, request_id));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetStatus(
    grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
    v1::GetStatusResponse* response) {
  const Dispatcher::Snapshot snapshot = environment_.dispatcher.snapshot();
  response->set_version(kVersion);
  response->set_uptime_seconds(
      absl::ToDoubleSeconds(environment_.clock.Now() - start_));
  response->set_running_requests(
      static_cast<uint32_t>(snapshot.load.running_requests));
  response->set_waiting_requests(
      static_cast<uint32_t>(snapshot.load.backlog.waiting_requests));
  response->set_waiting_tokens(
      static_cast<uint64_t>(snapshot.load.backlog.waiting_tokens));
  for (const Group& group : snapshot.groups)
    FillGroup(group, *response->add_groups());
  absl::Status status;
  const std::string request_id = TakeRequestId(*context, status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(WithRequestId(status, request_id));
  return reactor;
}

// The model's limit, or what the largest group holds if that is less.
int InferenceService::MaxContextTokens() const {
  int largest = 0;
  for (const Group& group : environment_.dispatcher.snapshot().groups) {
    if (group.state == GroupState::kRefused || !group.description.has_value())
      continue;
    largest = std::max(largest, group.description->max_context_tokens);
  }
  const int limit = environment_.model.max_context_tokens;
  return largest > 0 ? std::min(largest, limit) : limit;
}

}  // namespace lapidary
