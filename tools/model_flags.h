// The flags of tools that run a model: --model, --image-dir, --compute, --isa,
// --threads.

#ifndef TOOLS_MODEL_FLAGS_H_
#define TOOLS_MODEL_FLAGS_H_

#include "absl/status/statusor.h"
#include "worker/model/loaded_model.h"

namespace lapidary {

// Errors: INVALID_ARGUMENT, naming the flag and what it may be.
absl::StatusOr<ModelOptions> ModelOptionsFromFlags();

}  // namespace lapidary

#endif  // TOOLS_MODEL_FLAGS_H_
