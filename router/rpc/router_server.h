// The router's gRPC server: the Inference service, grpc.health.v1 and
// reflection.

#ifndef ROUTER_RPC_ROUTER_SERVER_H_
#define ROUTER_RPC_ROUTER_SERVER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace lapidary {

class InferenceService;

// Thread-safe.
class RouterServer {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";  // HOST:PORT; port 0 takes a free one.
    // Of a request; larger ones end their call.
    int64_t max_message_bytes = int64_t{64} << 20;
    // Calls that one connection has open; its client keeps back what is more.
    int max_streams = 1024;
    // What gRPC holds of requests and answers, of all connections together.
    // Above that it reads less, and then closes connections.
    int64_t max_buffered_bytes = int64_t{1} << 30;
    // Pings to clients, so that idle proxies do not cut long prefills.
    absl::Duration keepalive_interval = absl::Seconds(20);
    absl::Duration keepalive_timeout = absl::Seconds(10);
  };

  // Serves until destruction; not healthy at first.  `service` must outlive
  // the server.
  //
  // Errors: UNAVAILABLE if the address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(
      const Options& options, InferenceService& service);
  ~RouterServer();

  RouterServer(const RouterServer&) = delete;
  RouterServer& operator=(const RouterServer&) = delete;

  // HOST:PORT that is listened on.
  const std::string& address() const { return address_; }

  // What the health service says from now.
  void SetServing(bool serving);

  // Takes no more calls, waits for the open ones, and after `grace` cancels
  // them.
  void Shutdown(absl::Duration grace);

 private:
  RouterServer(std::unique_ptr<grpc::Server> server, std::string address);

  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  std::atomic<bool> serving_ = false;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_ROUTER_SERVER_H_
