// WorkerClient over gRPC.

#ifndef ROUTER_RPC_GRPC_WORKER_CLIENT_H_
#define ROUTER_RPC_GRPC_WORKER_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "router/rpc/worker_client.h"

namespace lapidary {

struct GrpcWorkerOptions {
  int64_t max_message_bytes = 64 << 20;
  // Pings, so that idle proxies do not cut long prefills.
  absl::Duration keepalive_interval = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(10);
};

// Connects when it is first used, and again when a connection is lost.
std::unique_ptr<WorkerClient> NewGrpcWorkerClient(
    const std::string& address, const GrpcWorkerOptions& options);

}  // namespace lapidary

#endif  // ROUTER_RPC_GRPC_WORKER_CLIENT_H_
