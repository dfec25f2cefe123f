// Names of requests, for log lines, errors and trailers.  A client may bring
// its own in the metadata key x-request-id.

#ifndef COMMON_REQUEST_ID_H_
#define COMMON_REQUEST_ID_H_

#include <string>

#include "absl/strings/string_view.h"

namespace lapidary {

// gRPC metadata key, both ways.
inline constexpr char kRequestIdKey[] = "x-request-id";

// Longest id that a client may bring, in bytes.
inline constexpr int kMaxRequestIdBytes = 128;

// Whether `id` may stand in a log line as it is: 1 to kMaxRequestIdBytes
// printable ASCII characters without blanks.
bool IsRequestId(absl::string_view id);

// 16 hexadecimal digits, random.  Thread-safe.
std::string NewRequestId();

}  // namespace lapidary

#endif  // COMMON_REQUEST_ID_H_
