// absl::Status to and from grpc::Status, with the google.rpc details that this
// project sends.
//
// A detail is a payload of the absl::Status, keyed by its type URL, so code
// that only passes a Status on carries its details along:
//
//   absl::Status status = absl::ResourceExhaustedError("queue is full: …");
//   SetRetryDelay(absl::Seconds(3), status);
//   return ToGrpcStatus(status);      // google.rpc.Status with a RetryInfo.

#ifndef COMMON_GRPC_STATUS_H_
#define COMMON_GRPC_STATUS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace lapidary {

// Codes map one to one.  Payloads whose key is a type URL become details.  Both
// sides travel as HTTP/2 headers, for which receivers have 8 KiB by default, so
// a message is cut at 2,000 bytes, and details beyond 3,000 bytes are left out.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The reverse.  Details that do not parse are dropped.
absl::Status FromGrpcStatus(const grpc::Status& status);

// One wrong field of a request.
struct FieldViolation {
  std::string field;        // A path such as "sampling.top_p" or "stop[3]".
  std::string description;  // What was expected and what was there.
};

// INVALID_ARGUMENT with a google.rpc.BadRequest.  Its message names the first
// violation and how many there are; the details carry at most kMaxViolations.
//
// REQUIRES: `violations` is not empty.
inline constexpr int kMaxViolations = 16;
absl::Status BadRequestError(std::vector<FieldViolation> violations);
std::vector<FieldViolation> GetFieldViolations(const absl::Status& status);

// google.rpc.RetryInfo: when the caller may try again.  No effect on OK.
void SetRetryDelay(absl::Duration delay, absl::Status& status);
std::optional<absl::Duration> GetRetryDelay(const absl::Status& status);

// google.rpc.RequestInfo: whose error this is.  No effect on OK.
void SetRequestId(absl::string_view request_id, absl::Status& status);
std::optional<std::string> GetRequestId(const absl::Status& status);

}  // namespace lapidary

#endif  // COMMON_GRPC_STATUS_H_
