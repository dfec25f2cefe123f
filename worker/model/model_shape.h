// What the costs of a model's steps depend on, from its configuration.

#ifndef WORKER_MODEL_MODEL_SHAPE_H_
#define WORKER_MODEL_MODEL_SHAPE_H_

#include "worker/model/gemma_config.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {

// Layers of a type count as the first of it.
ModelShape ShapeOfModel(const GemmaConfig& config);

}  // namespace lapidary

#endif  // WORKER_MODEL_MODEL_SHAPE_H_
