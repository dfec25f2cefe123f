// What tells whether router and workers have the same model.

#ifndef COMMON_MODEL_FILES_H_
#define COMMON_MODEL_FILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

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
