// Whether the machine has the memory for what is about to be loaded.

#ifndef WORKER_LOADER_MEMORY_CHECK_H_
#define WORKER_LOADER_MEMORY_CHECK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// Bytes that this process can still take: the least of what the machine has and
// what each of its control groups (v2 or v1) lets it.  Cached files count as
// free.  `root` is where /proc and /sys are found.
//
// Errors: INTERNAL if /proc/meminfo cannot be read.
absl::StatusOr<int64_t> AvailableMemory(const std::string& root = "");

// Errors: RESOURCE_EXHAUSTED if `needed_bytes`, for `what` ("weights of
// /models/12b and 8 GiB of key/value memory"), are more than there are; names
// both figures.
absl::Status CheckMemory(int64_t needed_bytes, absl::string_view what,
                         const std::string& root = "");

}  // namespace lapidary

#endif  // WORKER_LOADER_MEMORY_CHECK_H_
