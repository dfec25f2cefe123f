// The sum of what the ranks of a group have.

#ifndef WORKER_PARALLEL_RANK_SUM_H_
#define WORKER_PARALLEL_RANK_SUM_H_

#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace lapidary {

// out[i] = parts[0][i] + parts[1][i] + …, in fp32, in this order, rounded once.
// Each has `count` values; `out` may be one of the parts.
//
// REQUIRES: parts is not empty.
void SumInOrder(std::span<const void* const> parts, DType dtype, int64_t count,
                void* out);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_RANK_SUM_H_
