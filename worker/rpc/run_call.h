// One Run() on the worker's side: from the outbox of a request to its stream.

#ifndef WORKER_RPC_RUN_CALL_H_
#define WORKER_RPC_RUN_CALL_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/mutex.h"
#include "common/ticker.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "worker/engine/active_request.h"
#include "worker/engine/engine.h"
#include "worker/engine/outbox.h"
#include "worker/metrics.h"
#include "worker/rpc/run_request.h"

namespace lapidary {

// A write is under way or not; each ending starts the next with what has
// gathered in the outbox since, so that a slow reader makes messages larger and
// holds nobody up.
//
// Owned by itself until OnDone(); the outbox and the ticker call it through
// weak pointers.  Thread-safe.
class RunCall : public grpc::ServerWriteReactor<v1::RunResponse>,
                public std::enable_shared_from_this<RunCall> {
 public:
  // Tokens of one message at most.
  static constexpr int kMessageTokens = 1024;

  // Checks `request`, submits it and returns the reactor of its call.  Before
  // its first token, progress is repeated whenever `ticker` calls.
  static RunCall* Start(grpc::CallbackServerContext& context,
                        const v1::RunRequest& request, const RunLimits& limits,
                        Engine& engine, WorkerMetrics& metrics, Ticker& ticker);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  RunCall() = default;

  void Submit(const grpc::CallbackServerContext& context, EngineRequest request,
              Engine& engine, Ticker& ticker);
  void Refuse(const absl::Status& status);
  // Starts a write, or ends the call, if it is time to.
  void Advance();
  void RepeatProgress();
  void TakeFromOutbox() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::shared_ptr<RunCall> self_;  // Until OnDone().

  // Constant once started.
  std::string request_id_;
  bool with_logprobs_ = false;
  std::shared_ptr<Outbox> outbox_;  // With the engine; null if refused.

  Mutex mutex_;
  std::unique_ptr<Ticker::Subscription> subscription_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::RunResponse> unsent_ ABSL_GUARDED_BY(mutex_);
  v1::RunResponse last_progress_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);  // At the end.
  bool has_tokens_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;  // The caller is gone.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;

  v1::RunResponse sending_;  // Read by gRPC while writing_.
};

}  // namespace lapidary

#endif  // WORKER_RPC_RUN_CALL_H_
