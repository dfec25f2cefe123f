// Files that are read whole.

#ifndef COMMON_READ_FILE_H_
#define COMMON_READ_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

// More than the largest file of a model that is read whole, tokenizer.json.
inline constexpr int64_t kMaxFileBytes = int64_t{256} << 20;

// The whole of a regular file; a link is followed.  Never waits for a writer.
//
// Errors, with the path: NOT_FOUND, PERMISSION_DENIED, or what the system says;
// FAILED_PRECONDITION for what is no regular file, such as a directory;
// RESOURCE_EXHAUSTED above `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes = kMaxFileBytes);

// What `file`, an open descriptor, has from here to its end.  Waits for it;
// `name` stands for it in errors, which are those of ReadFile().
absl::StatusOr<std::string> ReadToEnd(int file, const std::string& name,
                                      int64_t max_bytes);

}  // namespace lapidary

#endif  // COMMON_READ_FILE_H_
