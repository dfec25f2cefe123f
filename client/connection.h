// The client's calls to a router.

#ifndef CLIENT_CONNECTION_H_
#define CLIENT_CONNECTION_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/interrupt.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

struct ConnectionOptions {
  std::string router{};  // HOST:PORT
  // What a whole call may take.  Infinite: as long as it needs.
  absl::Duration deadline = absl::InfiniteDuration();
  std::string request_id{};  // Empty: the router chooses one.
};

// Calls block.  Errors are those of inference.proto, with their details; Ctrl-C
// ends a call with CANCELLED and lets the router know.  Thread-compatible.
class Connection {
 public:
  // Does not connect yet.  `interrupt` must outlive it.
  Connection(const ConnectionOptions& options, Interrupt& interrupt);

  using OnEvent = std::function<void(const v1::GenerateResponse&)>;

  // Calls `on_event` with every message of the stream, in order, in this
  // thread.  INTERNAL if the stream ended well but without `completed`.
  absl::Status Generate(const v1::GenerateRequest& request,
                        const OnEvent& on_event);

  absl::StatusOr<v1::CountTokensResponse> CountTokens(
      const v1::GenerateRequest& request);
  absl::StatusOr<v1::GetModelResponse> GetModel();
  absl::StatusOr<v1::GetStatusResponse> GetStatus();

  const std::string& router() const { return options_.router; }

 private:
  std::unique_ptr<grpc::ClientContext> NewContext() const;
  absl::Status ToStatus(const grpc::Status& status) const;

  // Makes one call that is not a stream, as a member function of the stub.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(
      grpc::Status (v1::Inference::Stub::*method)(grpc::ClientContext*,
                                                  const Request&, Response*),
      const Request& request);

  const ConnectionOptions options_;
  Interrupt& interrupt_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace lapidary

#endif  // CLIENT_CONNECTION_H_
