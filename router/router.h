// The router as a whole: text in front, groups behind.
//
//   client ─► InferenceService ─► GenerateCall ─► TokenizePool
//                                     │  ▲
//                                     ▼  │ text
//                                 Dispatcher (RouterCore) ─► WorkerClient ─►
//                                 group

#ifndef ROUTER_ROUTER_H_
#define ROUTER_ROUTER_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "router/metrics.h"
#include "router/router_options.h"
#include "router/rpc/dispatcher.h"
#include "router/rpc/inference_service.h"
#include "router/rpc/router_server.h"
#include "router/rpc/served_model.h"
#include "router/rpc/tokenize_pool.h"
#include "router/rpc/worker_client.h"

namespace lapidary {

// Thread-safe.
class Router {
 public:
  // Loads the model's files, connects to the groups and listens.
  //
  // Errors: INVALID_ARGUMENT for options and the model's files, UNAVAILABLE if
  // an address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Router>> Start(
      const RouterOptions& options);

  // As Start(), with the clients of the groups given: one for each of
  // options.groups.
  static absl::StatusOr<std::unique_ptr<Router>> StartWith(
      const RouterOptions& options,
      std::vector<std::unique_ptr<WorkerClient>> clients);

  // Stops, and takes seconds to end the metrics page.
  ~Router();

  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // Takes no new requests and waits until those it has are done, for
  // options.drain_timeout at most.
  void Drain();

  // Listens no more, and ends at once what Drain() has not ended.
  void Stop();

  // HOST:PORT that is listened on.
  const std::string& address() const { return server_->address(); }
  const std::string& metrics_address() const { return page_->address(); }
  const ServedModel& model() const { return *model_; }

 private:
  Router(const RouterOptions& options,
         std::unique_ptr<const ServedModel> model);

  absl::Status Listen();
  void OnTick(const Dispatcher::Snapshot& snapshot);

  const RouterOptions options_;
  const std::unique_ptr<const ServedModel> model_;
  SystemClock clock_;
  Metrics metrics_;
  RouterMetrics router_metrics_;
  std::unique_ptr<TokenizePool> pool_;
  std::unique_ptr<Dispatcher> dispatcher_;
  CallCounter calls_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<MetricsPage> page_;
  std::atomic<bool> draining_ = false;
  std::unique_ptr<RouterServer> server_;
};

}  // namespace lapidary

#endif  // ROUTER_ROUTER_H_
