// How the router talks to one group: worker.proto's calls, without waiting.
//
//   auto run = client.Run(request, id, deadline,
//                         {.on_message = …, .on_done = …});
//   run->ReadNext();     // on_message or on_done will be called, once.

#ifndef ROUTER_RPC_WORKER_CLIENT_H_
#define ROUTER_RPC_WORKER_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/lapidary/v1/worker.pb.h"

namespace lapidary {

// A call whose answers come one after the other, when asked for: what is not
// asked for stays with the group, which stops when enough waits.
//
// Thread-safe.
class WorkerStream {
 public:
  virtual ~WorkerStream() = default;

  // Asks for the next message.  Ends in one call of on_message or of on_done,
  // on another thread or later on this one, never inside ReadNext().
  //
  // REQUIRES: the answer to the last ReadNext() has come.
  virtual void ReadNext() = 0;

  // Ends the call: no on_message any more, and on_done comes soon, even if no
  // ReadNext() is open.  No effect after that.
  virtual void Cancel() = 0;
};

// Who hears of a stream.  Kept until on_done has returned.
template <typename Message>
struct StreamHandler {
  std::function<void(Message&)> on_message;
  std::function<void(const absl::Status&)> on_done;  // The last call.
};

// Thread-safe.  Destruction cancels all calls and waits until the last callback
// has returned; it must not happen on a callback's thread.
class WorkerClient {
 public:
  virtual ~WorkerClient() = default;

  // Calls `done` once, never inside Describe().
  virtual void Describe(
      absl::Duration timeout,
      std::function<void(const absl::StatusOr<v1::DescribeResponse>&)>
          done) = 0;

  // The streams are shared: by the caller, and by the client until on_done has
  // returned.

  virtual std::shared_ptr<WorkerStream> Watch(
      StreamHandler<v1::GroupState> handler) = 0;

  virtual std::shared_ptr<WorkerStream> Run(
      const v1::RunRequest& request, absl::Time deadline,
      StreamHandler<v1::RunResponse> handler) = 0;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_WORKER_CLIENT_H_
