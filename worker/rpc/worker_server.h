// The worker's gRPC server: the Worker service, grpc.health.v1 and reflection.

#ifndef WORKER_RPC_WORKER_SERVER_H_
#define WORKER_RPC_WORKER_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/engine.h"
#include "worker/engine/state_board.h"
#include "worker/metrics.h"
#include "worker/rpc/group_description.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace lapidary {

class WorkerService;

// Thread-safe.
class WorkerServer {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";  // HOST:PORT; port 0 takes a free one.
    // Of a message, either way; larger ones end their call.
    int64_t max_message_bytes = int64_t{64} << 20;
    GroupDescription group;
  };

  // Serves until destruction, healthy until the engine drains.  References must
  // outlive the server.
  //
  // Errors: UNAVAILABLE if the address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(
      const Options& options, Engine& engine, StateBoard& board,
      WorkerMetrics& metrics);
  // Shuts down at once.
  ~WorkerServer();

  WorkerServer(const WorkerServer&) = delete;
  WorkerServer& operator=(const WorkerServer&) = delete;

  // HOST:PORT that is listened on.
  const std::string& address() const { return address_; }

  // Takes no more calls, waits for the open ones, and after `grace` cancels
  // them.
  void Shutdown(absl::Duration grace);

 private:
  WorkerServer(const Options& options, StateBoard& board);

  // Makes health follow the state board.
  void FollowBoard();

  const Options options_;
  StateBoard& board_;
  std::string address_;
  std::unique_ptr<WorkerService> service_;
  std::shared_ptr<grpc::Server> server_;  // With a listener that is called.
  StateBoard::ListenerId listener_ = 0;
};

}  // namespace lapidary

#endif  // WORKER_RPC_WORKER_SERVER_H_
