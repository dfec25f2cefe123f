// The small files of a model's directory, as router and workers read them.

#ifndef COMMON_MODEL_FILES_H_
#define COMMON_MODEL_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

// The whole of a regular file.
//
// Errors: NOT_FOUND, PERMISSION_DENIED, or what the system says, with the path;
// RESOURCE_EXHAUSTED above kMaxModelFileBytes.
absl::StatusOr<std::string> ReadFile(const std::string& path);

inline constexpr int64_t kMaxModelFileBytes = int64_t{256} << 20;

// Tell whether two processes serve the same model: 32 hexadecimal digits each.
struct ModelDigests {
  std::string config;     // Of config.json, whatever its layout.
  std::string tokenizer;  // Of the bytes of tokenizer.json.

  bool operator==(const ModelDigests&) const = default;
};

// Errors: those of ReadFile(); INVALID_ARGUMENT if config.json is not JSON.
absl::StatusOr<ModelDigests> DigestModelFiles(const std::string& directory);

}  // namespace lapidary

#endif  // COMMON_MODEL_FILES_H_
