// What a call's metadata says: request id and deadline.

#ifndef ROUTER_RPC_CALL_METADATA_H_
#define ROUTER_RPC_CALL_METADATA_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"

namespace lapidary {

// The id that the client brought, or a new one if it brought none or no valid
// one.  Also puts it into the trailer.
//
// Errors in `status`: INVALID_ARGUMENT if the client's is not valid.
std::string TakeRequestId(grpc::CallbackServerContext& context,
                          absl::Status& status);

// InfiniteFuture() if the client set none.
absl::Time CallDeadline(const grpc::CallbackServerContext& context);

}  // namespace lapidary

#endif  // ROUTER_RPC_CALL_METADATA_H_
