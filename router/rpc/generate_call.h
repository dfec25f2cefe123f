// One Generate call: from the bytes of the request to the end of the stream.
//
//   gRPC thread    Start: request id, pool; progress from now to the first
//   token pool thread    Prepare: parse, check, template, tokens; submit any
//   thread     OnStart: run at a group gRPC thread    OnRunMessage: tokens to
//   text; OnWriteDone: the next message
//
// Writes go one at a time; while one is under way, what comes joins in the
// ResponseQueue, and when that is full the group's stream is read no more until
// the client has caught up.

#ifndef ROUTER_RPC_GENERATE_CALL_H_
#define ROUTER_RPC_GENERATE_CALL_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/inference.pb.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "router/core/progress_pace.h"
#include "router/core/session.h"
#include "router/rpc/call_environment.h"
#include "router/rpc/dispatcher.h"
#include "router/rpc/prompt_builder.h"
#include "router/rpc/response_queue.h"

namespace lapidary {

// Shared by: gRPC, until OnDone(); the pool's job; the dispatcher's handler;
// the handler of the group's stream.
class GenerateCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  // Begins the call; it goes on by itself.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      const CallEnvironment& environment, grpc::CallbackServerContext& context,
      const grpc::ByteBuffer& request);

  GenerateCall(const CallEnvironment& environment,
               grpc::CallbackServerContext& context);
  ~GenerateCall() override;

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Begin(const grpc::ByteBuffer& request);
  void Prepare(const grpc::ByteBuffer& bytes);
  void SetUp(const v1::GenerateRequest& request, Prompt prompt)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Dispatcher::Handler NewHandler();

  // From the dispatcher.
  void OnStart(WorkerClient& client, const std::string& group, int max_tokens);
  std::shared_ptr<WorkerStream> StartRun(WorkerClient& client,
                                         const std::string& group,
                                         int max_tokens)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnFailure(const Refusal& refusal);
  void OnTick(absl::Time now);

  // From the group; `run` tells the runs of one request apart.
  void OnRunMessage(int run, v1::RunResponse& response);
  void OnRunDone(int run, const absl::Status& status);
  void TakeProgress(const v1::RunProgress& progress)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeTokens(v1::RunTokens& tokens) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeFinished(const v1::RunFinished& finished)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveTokens(int num_tokens, std::optional<absl::Time> previous,
                     absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Complete(const std::optional<Session::GroupTimes>& group_times)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Ends the call with an error, unless it has ended; gives up its run.
  void Fail(absl::Status status);
  void End(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogEnd(const absl::Status& status, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Writes the next message, or finishes, unless a write is under way.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallEnvironment environment_;
  grpc::CallbackServerContext& context_;  // Valid until OnDone().
  const absl::Time arrival_;
  const absl::Time deadline_;
  const RequestKey key_;
  std::string request_id_;              // Constant after Begin().
  std::shared_ptr<GenerateCall> self_;  // Until OnDone().

  Mutex mutex_;
  ResponseQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer message_ ABSL_GUARDED_BY(mutex_);  // While writing_.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;     // Finish() was called.
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;  // The client hears nothing.
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  v1::Progress progress_ ABSL_GUARDED_BY(mutex_);
  ProgressPace pace_ ABSL_GUARDED_BY(mutex_);

  // Since Prepare().
  std::optional<Session> session_ ABSL_GUARDED_BY(mutex_);
  v1::RunRequest run_request_ ABSL_GUARDED_BY(mutex_);  // To the first token.
  uint64_t seed_ ABSL_GUARDED_BY(mutex_) = 0;

  // Since OnStart().
  int run_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<WorkerStream> stream_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) =
      false;  // stream_ waits for the client.
  std::string group_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Time> last_token_ ABSL_GUARDED_BY(mutex_);
  uint32_t cached_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_GENERATE_CALL_H_
