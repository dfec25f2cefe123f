// Which tensors a checkpoint has, by the family of its model.

#ifndef TOOLS_TENSOR_LIST_H_
#define TOOLS_TENSOR_LIST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

struct NamedShape {
  std::string name;  // As in the checkpoint.
  std::vector<int64_t> shape;
};

// The tensors of the model that `config` (the text of a config.json) describes:
// those of text, and those of images and audio where their configs are given.
//
// Errors: those of ParseGemmaConfig.
absl::StatusOr<std::vector<NamedShape>> CheckpointTensors(
    absl::string_view config);

}  // namespace lapidary

#endif  // TOOLS_TENSOR_LIST_H_
