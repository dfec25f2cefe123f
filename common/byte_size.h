// Sizes in bytes as people write them: "8GiB", "512MiB", "1000000".

#ifndef COMMON_BYTE_SIZE_H_
#define COMMON_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// Errors: INVALID_ARGUMENT if `text` is not a non-negative number, whole or
// with a decimal point, followed by B, KiB, MiB, GiB, TiB or nothing.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// In the largest unit that gives at least 1, with at most two decimals.
std::string FormatByteSize(int64_t bytes);

}  // namespace lapidary

#endif  // COMMON_BYTE_SIZE_H_
