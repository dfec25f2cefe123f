// One CountTokens call: from the bytes of the request to the number.

#ifndef ROUTER_RPC_COUNT_CALL_H_
#define ROUTER_RPC_COUNT_CALL_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/inference.pb.h"
#include "router/rpc/call_environment.h"

namespace lapidary {

// Owned by itself until OnDone(), and by the pool's job while that works: a
// call that was cancelled before is not tokenized.
class CountCall final : public grpc::ServerUnaryReactor,
                        public std::enable_shared_from_this<CountCall> {
 public:
  // Begins the call; it goes on by itself.  `max_context_tokens`: the longest
  // context that is served.
  static grpc::ServerUnaryReactor* Start(const CallEnvironment& environment,
                                         grpc::CallbackServerContext& context,
                                         const grpc::ByteBuffer& request,
                                         int max_context_tokens,
                                         grpc::ByteBuffer& response);

  CountCall(const CallEnvironment& environment, int max_context_tokens,
            grpc::ByteBuffer& response);
  ~CountCall() override;

 private:
  void OnCancel() override;
  void OnDone() override;

  void Begin(grpc::CallbackServerContext& context,
             const grpc::ByteBuffer& request);
  // On a thread of the pool.
  void Work(const grpc::ByteBuffer& request);
  absl::StatusOr<v1::CountTokensResponse> Count(
      const grpc::ByteBuffer& bytes) const;
  // Ends the call, unless it has ended.
  void End(const absl::StatusOr<v1::CountTokensResponse>& count);

  const CallEnvironment environment_;
  const absl::Time arrival_;
  const int max_context_tokens_;
  std::string request_id_;           // Constant after Begin().
  std::shared_ptr<CountCall> self_;  // Until OnDone().

  Mutex mutex_;
  grpc::ByteBuffer& response_ ABSL_GUARDED_BY(mutex_);  // Until finished_.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;       // Finish() was called.
};

}  // namespace lapidary

#endif  // ROUTER_RPC_COUNT_CALL_H_
