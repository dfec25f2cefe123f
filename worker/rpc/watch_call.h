// One Watch() on the worker's side: from the state board to its stream.

#ifndef WORKER_RPC_WATCH_CALL_H_
#define WORKER_RPC_WATCH_CALL_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "common/mutex.h"
#include "common/ticker.h"
#include "grpcpp/support/server_callback.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "worker/engine/state_board.h"
#include "worker/rpc/group_description.h"

namespace lapidary {

// Sends the state when the board or the ticker calls; changes during a
// write become one message after it.  Ends when the engine has stopped.
//
// Owned by itself until OnDone(); board and ticker call it through weak
// pointers.  Thread-safe.
class WatchCall : public grpc::ServerWriteReactor<v1::GroupState>,
                  public std::enable_shared_from_this<WatchCall> {
 public:
  // References must outlive the call.
  static WatchCall* Start(const GroupDescription& group, StateBoard& board,
                          Ticker& ticker);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  WatchCall(const GroupDescription& group, StateBoard& board)
      : group_(group), board_(board) {}

  void Listen(Ticker& ticker);
  void SendState();
  void Advance();
  v1::GroupState MessageOf(const EngineState& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const GroupDescription& group_;
  StateBoard& board_;
  std::shared_ptr<WatchCall> self_;  // Until OnDone().
  StateBoard::ListenerId listener_ = 0;

  Mutex mutex_;
  std::unique_ptr<Ticker::Subscription> subscription_ ABSL_GUARDED_BY(mutex_);
  uint64_t num_sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool changed_ ABSL_GUARDED_BY(mutex_) = true;  // Since the last message.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_ ABSL_GUARDED_BY(mutex_) = false;  // The engine has stopped.

  v1::GroupState sending_;  // Read by gRPC while writing_.
};

}  // namespace lapidary

#endif  // WORKER_RPC_WATCH_CALL_H_
