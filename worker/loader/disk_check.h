// Whether there is the disk for what is about to be written.

#ifndef WORKER_LOADER_DISK_CHECK_H_
#define WORKER_LOADER_DISK_CHECK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// Errors: RESOURCE_EXHAUSTED if `needed_bytes`, for `what` ("the packed
// weights"), are more than are free where `directory` is; names both figures.
absl::Status CheckDisk(const std::string& directory, int64_t needed_bytes,
                       absl::string_view what);

}  // namespace lapidary

#endif  // WORKER_LOADER_DISK_CHECK_H_
