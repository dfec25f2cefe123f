#include "client/connection.h"

#include "client/error_text.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "grpcpp/grpcpp.h"

namespace lapidary {
namespace {

std::shared_ptr<grpc::Channel> NewChannel(const std::string& router) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // Proxies cut connections that look idle; a long prefill may.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(router, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

Connection::Connection(const ConnectionOptions& options, Interrupt& interrupt)
    : options_(options),
      interrupt_(interrupt),
      stub_(v1::Inference::NewStub(NewChannel(options.router))) {}

std::unique_ptr<grpc::ClientContext> Connection::NewContext() const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (options_.deadline != absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + options_.deadline));
  }
  if (!options_.request_id.empty()) {
    context->AddMetadata("x-request-id", options_.request_id);
  }
  return context;
}

absl::Status Connection::ToStatus(const grpc::Status& status) const {
  return ExplainCall(FromGrpcStatus(status), options_.router,
                     options_.deadline);
}

absl::Status Connection::Generate(const v1::GenerateRequest& request,
                                  const OnEvent& on_event) {
  const std::unique_ptr<grpc::ClientContext> context = NewContext();
  Interrupt::Scope cancel(interrupt_, [&context] { context->TryCancel(); });
  const auto reader = stub_->Generate(context.get(), request);
  v1::GenerateResponse response;
  bool completed = false;
  while (reader->Read(&response)) {
    completed = response.has_completed();
    on_event(response);
  }
  RETURN_IF_ERROR(ToStatus(reader->Finish()));
  if (!completed) {
    return absl::InternalError("the router ended the stream without a result");
  }
  return absl::OkStatus();
}

template <typename Request, typename Response>
absl::StatusOr<Response> Connection::Call(
    grpc::Status (v1::Inference::Stub::*method)(grpc::ClientContext*,
                                                const Request&, Response*),
    const Request& request) {
  const std::unique_ptr<grpc::ClientContext> context = NewContext();
  Interrupt::Scope cancel(interrupt_, [&context] { context->TryCancel(); });
  Response response;
  RETURN_IF_ERROR(
      ToStatus((*stub_.*method)(context.get(), request, &response)));
  return response;
}

absl::StatusOr<v1::CountTokensResponse> Connection::CountTokens(
    const v1::GenerateRequest& request) {
  return Call(&v1::Inference::Stub::CountTokens, request);
}

absl::StatusOr<v1::GetModelResponse> Connection::GetModel() {
  return Call(&v1::Inference::Stub::GetModel, v1::GetModelRequest());
}

absl::StatusOr<v1::GetStatusResponse> Connection::GetStatus() {
  return Call(&v1::Inference::Stub::GetStatus, v1::GetStatusRequest());
}

}  // namespace lapidary
