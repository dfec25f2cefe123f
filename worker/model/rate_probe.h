// How fast this rank computes: measured once at start, through the backend.

#ifndef WORKER_MODEL_RATE_PROBE_H_
#define WORKER_MODEL_RATE_PROBE_H_

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {

// Measures the three rates of computation; those of the link stay 0.
//
//   matmul_flops     256 rows through (the first 4096 rows of) a gate matrix
//   read_bytes       one row through gate and up of the layers, 256 MB of them
//   attention_flops  128 queries over 2048 keys of a global layer (of a window
//                    layer, if there is none)
//
// Each is the median of up to seven runs that take about 0.05 s together, on
// weights and keys that a run before them has touched.  All ranks of a host
// should measure at the same time, as they will compute at the same time.
//
// `compute` is the dtype of activations and keys.
//
// Errors: RESOURCE_EXHAUSTED for its buffers, the backend's.
absl::StatusOr<RankRates> MeasureRates(const GemmaConfig& config,
                                       const GemmaWeights& weights,
                                       DType compute, Backend& backend);

}  // namespace lapidary

#endif  // WORKER_MODEL_RATE_PROBE_H_
