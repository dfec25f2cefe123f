// The document that a request is about.

#ifndef CLIENT_DOCUMENT_H_
#define CLIENT_DOCUMENT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

// No message of gRPC is larger.
inline constexpr int64_t kMaxDocumentBytes = (int64_t{1} << 31) - 1;

// The text of the file at `path`, or of standard input for "-".
//
// Errors: INVALID_ARGUMENT if it cannot be read, is empty, or is larger than
// kMaxDocumentBytes; the message names --file and says which.
absl::StatusOr<std::string> ReadDocument(const std::string& path);

}  // namespace lapidary

#endif  // CLIENT_DOCUMENT_H_
