#include "worker/rpc/worker_server.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "glog/logging.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "worker/rpc/worker_service.h"

namespace lapidary {
namespace {

// Idle proxies cut connections after a minute or so.
constexpr absl::Duration kKeepalivePeriod = absl::Seconds(20);
constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(10);
// Clients may ping as often as this.
constexpr absl::Duration kMinPingPeriod = absl::Seconds(5);

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// gRPC's own log goes where ours goes, with --v=1: what matters of it comes
// back as a status.
void LogOfGrpc(gpr_log_func_args* args) {
  VLOG(1) << "grpc: " << args->message;
}

void SetArguments(int64_t max_message_bytes, grpc::ServerBuilder& builder) {
  const int message_bytes = static_cast<int>(
      std::min<int64_t>(max_message_bytes, std::numeric_limits<int>::max()));
  builder.SetMaxReceiveMessageSize(message_bytes);
  builder.SetMaxSendMessageSize(message_bytes);
  // Else two processes may share a port without knowing.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             Milliseconds(kKeepalivePeriod));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             Milliseconds(kKeepaliveTimeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      Milliseconds(kMinPingPeriod));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(
    const Options& options, Engine& engine, StateBoard& board,
    WorkerMetrics& metrics) {
  gpr_set_log_function(LogOfGrpc);
  std::unique_ptr<WorkerServer> server(new WorkerServer(options, board));
  server->service_ = std::make_unique<WorkerService>(server->options_.group,
                                                     engine, board, metrics);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetArguments(options.max_message_bytes, builder);
  int port = 0;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(server->service_.get());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", options.listen,
        ": it is not HOST:PORT, the port is in use, or the address is not one "
        "of this machine's"));
  }
  server->address_ = absl::StrCat(
      options.listen.substr(0, options.listen.rfind(':')), ":", port);
  server->FollowBoard();
  return server;
}

WorkerServer::WorkerServer(const Options& options, StateBoard& board)
    : options_(options), board_(board) {}

WorkerServer::~WorkerServer() { Shutdown(absl::ZeroDuration()); }

void WorkerServer::FollowBoard() {
  const auto follow = [&board = board_,
                       weak = std::weak_ptr<grpc::Server>(server_)] {
    const std::shared_ptr<grpc::Server> server = weak.lock();
    if (server != nullptr && board.state().draining) {
      server->GetHealthCheckService()->SetServingStatus(false);
    }
  };
  listener_ = board_.AddListener(follow);
  follow();  // What happened before.
}

void WorkerServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;  // It did not start.
  board_.RemoveListener(listener_);
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
}

}  // namespace lapidary
