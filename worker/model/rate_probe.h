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
//   matmul_flops     256 rows through the first layer's gate
//   read_bytes       one row through gate, up and down of several layers
//   attention_flops  256 queries over 4096 keys of the widest global layer (of
//                    a window layer, if there is none)
//
// Each is the median of a few runs that take about 0.1 s together. `compute` is
// the dtype of activations and keys. All ranks of a host should measure at the
// same time, as they will compute at the same time.
//
// Errors: RESOURCE_EXHAUSTED for its buffers; the backend's.
absl::StatusOr<RankRates> MeasureRates(const GemmaConfig& config,
                                       const GemmaWeights& weights,
                                       DType compute, Backend& backend);

}  // namespace lapidary

#endif  // WORKER_MODEL_RATE_PROBE_H_
