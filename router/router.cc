#include "router/router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "router/rpc/discovery.h"
#include "router/rpc/grpc_worker_client.h"

namespace lapidary {
namespace {

// What waits for the pool, in messages of the largest size, and its least size.
constexpr int64_t kPoolMessages = 4;
constexpr int64_t kMinPoolBytes = 256 << 20;
// gRPC's buffers, in pools: what waits there, what comes in, and the answers.
constexpr int64_t kBuffersPerPool = 4;

int64_t PoolBytes(const RouterOptions& options) {
  return std::max(kMinPoolBytes, kPoolMessages * options.max_message_bytes);
}

// gRPC closes what is left this long after a drain.
constexpr absl::Duration kShutdownTimeout = absl::Milliseconds(200);

RouterCore::Options CoreOptions(const RouterOptions& options,
                                const ServedModel& model,
                                std::vector<std::string> addresses) {
  RouterCore::Options core;
  core.registry.addresses = std::move(addresses);
  core.registry.config_digest = model.digests.config;
  core.registry.tokenizer_digest = model.digests.tokenizer;
  core.admission.max_queued_tokens = options.max_queued_tokens;
  core.admission.max_waiting_requests = options.max_waiting_requests;
  core.admission.max_wait_for_group = options.max_wait_for_group;
  return core;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Router>> Router::Start(
    const RouterOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                   ParseGroupList(options.groups));
  std::vector<std::unique_ptr<WorkerClient>> clients;
  for (const std::string& address : addresses) {
    clients.push_back(NewGrpcWorkerClient(
        address, {.max_message_bytes = options.max_message_bytes,
                  .keepalive_interval = options.keepalive_interval,
                  .keepalive_timeout = options.keepalive_timeout}));
  }
  return StartWith(options, std::move(clients));
}

absl::StatusOr<std::unique_ptr<Router>> Router::StartWith(
    const RouterOptions& options,
    std::vector<std::unique_ptr<WorkerClient>> clients) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(std::vector<std::string> addresses,
                   ParseGroupList(options.groups));
  ASSIGN_OR_RETURN(auto model, ServedModel::Load(options.model));
  if (!model->template_warning.empty()) LOG(WARNING) << model->template_warning;

  std::unique_ptr<Router> router(new Router(options, std::move(model)));
  router->dispatcher_ = std::make_unique<Dispatcher>(
      CoreOptions(options, *router->model_, std::move(addresses)),
      std::move(clients), router->clock_);
  RETURN_IF_ERROR(router->Listen());
  ASSIGN_OR_RETURN(router->page_, MetricsPage::Serve(options.metrics_listen,
                                                     router->metrics_));
  router->dispatcher_->set_on_tick(
      [r = router.get()](const Dispatcher::Snapshot& snapshot) {
        r->OnTick(snapshot);
      });
  return router;
}

Router::Router(const RouterOptions& options,
               std::unique_ptr<const ServedModel> model)
    : options_(options),
      model_(std::move(model)),
      router_metrics_(metrics_),
      pool_(std::make_unique<TokenizePool>(
          TokenizePool::Options{.num_threads = options.tokenize_threads,
                                .max_bytes = PoolBytes(options)})) {}

Router::~Router() {
  Stop();
  pool_.reset();
  dispatcher_.reset();
}

void Router::Drain() {
  draining_ = true;
  server_->SetServing(false);
  dispatcher_->Drain();
  LOG(INFO) << "drains: " << calls_.count() << " requests run";
  calls_.WaitForNone(absl::Now() + options_.drain_timeout);
  if (const int left = calls_.count(); left > 0)
    LOG(WARNING) << left << " requests are cut off";
}

void Router::Stop() {
  if (dispatcher_ != nullptr) dispatcher_->set_on_tick(nullptr);
  if (server_ == nullptr) return;
  server_->Shutdown(kShutdownTimeout);
  calls_.WaitForNone(absl::InfiniteFuture());
}

absl::Status Router::Listen() {
  service_ = std::make_unique<InferenceService>(
      CallEnvironment{.model = *model_,
                      .dispatcher = *dispatcher_,
                      .pool = *pool_,
                      .metrics = router_metrics_,
                      .clock = clock_,
                      .calls = calls_});
  ASSIGN_OR_RETURN(
      server_, RouterServer::Start(
                   {.listen = options_.listen,
                    .max_message_bytes = options_.max_message_bytes,
                    .max_buffered_bytes = kBuffersPerPool * PoolBytes(options_),
                    .keepalive_interval = options_.keepalive_interval,
                    .keepalive_timeout = options_.keepalive_timeout},
                   *service_));
  return absl::OkStatus();
}

void Router::OnTick(const Dispatcher::Snapshot& snapshot) {
  router_metrics_.SetLoad(snapshot.groups, snapshot.load, pool_->num_waiting());
  const bool any_ready = std::any_of(
      snapshot.groups.begin(), snapshot.groups.end(),
      [](const Group& group) { return group.state == GroupState::kReady; });
  server_->SetServing(any_ready && !draining_);
}

}  // namespace lapidary
