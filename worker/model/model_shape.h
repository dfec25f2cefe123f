// What the costs of a model's steps depend on, from its configuration.

#ifndef WORKER_MODEL_MODEL_SHAPE_H_
#define WORKER_MODEL_MODEL_SHAPE_H_

#include <cstdint>

#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {

// Layers of a type count as the first of it.
ModelShape ShapeOfModel(const GemmaConfig& config);

// Pages of a global layer that a buffer of `memory` bytes holds: one at least,
// and no more than a whole context has.
int GatherPages(const GemmaConfig& config, int64_t memory, DType compute);

}  // namespace lapidary

#endif  // WORKER_MODEL_MODEL_SHAPE_H_
