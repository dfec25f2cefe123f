#include "router/rpc/count_call.h"

#include <utility>
#include <vector>

#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "router/rpc/call_metadata.h"
#include "router/rpc/prompt_builder.h"
#include "router/rpc/request_check.h"
#include "router/rpc/request_parser.h"

namespace lapidary {
namespace {

// When a client may come again if the pool is full.
constexpr absl::Duration kPoolRetry = absl::Seconds(1);

}  // namespace

grpc::ServerUnaryReactor* CountCall::Start(const CallEnvironment& environment,
                                           grpc::CallbackServerContext& context,
                                           const grpc::ByteBuffer& request,
                                           int max_context_tokens,
                                           grpc::ByteBuffer& response) {
  auto call =
      std::make_shared<CountCall>(environment, max_context_tokens, response);
  call->self_ = call;
  call->Begin(context, request);
  return call.get();
}

CountCall::CountCall(const CallEnvironment& environment, int max_context_tokens,
                     grpc::ByteBuffer& response)
    : environment_(environment),
      arrival_(environment.clock.Now()),
      max_context_tokens_(max_context_tokens),
      response_(response) {
  environment.calls.Add();
}

CountCall::~CountCall() { environment_.calls.Remove(); }

void CountCall::Begin(grpc::CallbackServerContext& context,
                      const grpc::ByteBuffer& request) {
  absl::Status status;
  request_id_ = TakeRequestId(context, status);
  if (status.ok()) {
    status = environment_.pool.Run(static_cast<int64_t>(request.Length()),
                                   [weak = weak_from_this(), bytes = request] {
                                     if (const auto call = weak.lock())
                                       call->Work(bytes);
                                   });
    if (!status.ok()) SetRetryDelay(kPoolRetry, status);
  }
  if (!status.ok()) End(status);
}

void CountCall::Work(const grpc::ByteBuffer& request) {
  {
    MutexLock lock(mutex_);
    if (finished_) return;  // The client has gone.
  }
  const auto count = Count(request);
  environment_.metrics.tokenize_seconds.Observe(
      absl::ToDoubleSeconds(environment_.clock.Now() - arrival_));
  End(count);
}

absl::StatusOr<v1::CountTokensResponse> CountCall::Count(
    const grpc::ByteBuffer& bytes) const {
  v1::GenerateRequest request;
  RETURN_IF_ERROR(ParseRequest(bytes, request));
  if (auto violations = CheckRequest(request, environment_.model);
      !violations.empty()) {
    return BadRequestError(std::move(violations));
  }
  ASSIGN_OR_RETURN(const Prompt prompt,
                   BuildPrompt(request, environment_.model));
  v1::CountTokensResponse response;
  response.set_prompt_tokens(static_cast<uint32_t>(prompt.tokens.size()));
  response.set_max_context_tokens(static_cast<uint32_t>(max_context_tokens_));
  return response;
}

void CountCall::End(const absl::StatusOr<v1::CountTokensResponse>& count) {
  absl::Status status = count.status();
  if (!status.ok()) SetRequestId(request_id_, status);
  MutexLock lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (count.ok()) response_ = SerializeMessage(*count);
  Finish(ToGrpcStatus(status));
}

void CountCall::OnCancel() { End(absl::CancelledError("the client has gone")); }

void CountCall::OnDone() { self_.reset(); }

}  // namespace lapidary
