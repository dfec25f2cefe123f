// RunRequest of the protocol, checked field by field.

#ifndef WORKER_RPC_RUN_REQUEST_H_
#define WORKER_RPC_RUN_REQUEST_H_

#include "absl/status/statusor.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "worker/engine/active_request.h"

namespace lapidary {

// What bounds a request.  proto/lapidary/v1/sampling.proto has the ranges of
// its fields.
struct RunLimits {
  static constexpr int kStopTokens = 1024;
  static constexpr int kSuppressedTokens = 4096;
  static constexpr int kLogitBiases = 1024;
  static constexpr int kLogprobs = 20;

  int vocab_size = 0;
  int max_context_tokens = 0;  // Prompt + output.
};

// The request without its id and deadline, which come from the call.
//
// Errors: INVALID_ARGUMENT, with a google.rpc.BadRequest that names each wrong
// field, what was expected and what was there.
absl::StatusOr<EngineRequest> ParseRunRequest(const v1::RunRequest& request,
                                              const RunLimits& limits);

}  // namespace lapidary

#endif  // WORKER_RPC_RUN_REQUEST_H_
