// The Worker service of proto/lapidary/v1/worker.proto in front of an engine.

#ifndef WORKER_RPC_WORKER_SERVICE_H_
#define WORKER_RPC_WORKER_SERVICE_H_

#include "absl/time/time.h"
#include "common/ticker.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"
#include "worker/engine/engine.h"
#include "worker/engine/state_board.h"
#include "worker/metrics.h"
#include "worker/rpc/group_description.h"
#include "worker/rpc/run_request.h"

namespace lapidary {

// Thread-safe.  Its threads are gRPC's: they wait for nothing.
class WorkerService : public v1::Worker::CallbackService {
 public:
  // Callers hear of progress and of the group's state this often: every second
  // at least, so a little is left for the way.
  static constexpr absl::Duration kTickPeriod = absl::Milliseconds(900);

  // References must outlive the service.
  WorkerService(const GroupDescription& group, Engine& engine,
                StateBoard& board, WorkerMetrics& metrics);

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;
  grpc::ServerWriteReactor<v1::RunResponse>* Run(
      grpc::CallbackServerContext* context,
      const v1::RunRequest* request) override;
  grpc::ServerWriteReactor<v1::GroupState>* Watch(
      grpc::CallbackServerContext* context,
      const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  const GroupDescription& group_;
  const RunLimits limits_;
  Engine& engine_;
  StateBoard& board_;
  WorkerMetrics& metrics_;
  Ticker ticker_{kTickPeriod};
};

}  // namespace lapidary

#endif  // WORKER_RPC_WORKER_SERVICE_H_
