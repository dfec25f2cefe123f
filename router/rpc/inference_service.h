// The client API: inference.proto.

#ifndef ROUTER_RPC_INFERENCE_SERVICE_H_
#define ROUTER_RPC_INFERENCE_SERVICE_H_

#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "router/rpc/call_environment.h"

namespace lapidary {

// Generate and CountTokens come as bytes: see request_parser.h.
using InferenceServiceBase = v1::Inference::WithRawCallbackMethod_Generate<
    v1::Inference::WithRawCallbackMethod_CountTokens<
        v1::Inference::WithCallbackMethod_GetModel<
            v1::Inference::WithCallbackMethod_GetStatus<
                v1::Inference::Service>>>>;

// Thread-safe.  Its threads are gRPC's and the pool's.
class InferenceService final : public InferenceServiceBase {
 public:
  // What `environment` refers to must outlive the server.
  explicit InferenceService(const CallEnvironment& environment);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;

  grpc::ServerUnaryReactor* CountTokens(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

 private:
  int MaxContextTokens() const;

  const CallEnvironment environment_;
  const absl::Time start_;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_INFERENCE_SERVICE_H_
