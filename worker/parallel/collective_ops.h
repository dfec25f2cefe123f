// Common exchanges (collective.h), each waited for before it returns.
//
// Errors of all: the collective's.

#ifndef WORKER_PARALLEL_COLLECTIVE_OPS_H_
#define WORKER_PARALLEL_COLLECTIVE_OPS_H_

#include <span>

#include "absl/status/status.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"

namespace lapidary {

// Start() and Wait().
absl::Status Exchange(Collective& collective, CollectiveKind kind,
                      Traffic traffic, std::span<const RankPart> sends,
                      std::span<const RankPart> receives);

// out [size() * rows, cols] becomes the ranks' x [rows, cols], in their order.
// `x` may be its own place in `out`.
//
// REQUIRES: if it is not, both are in the host's memory.
absl::Status AllGather(Collective& collective, Traffic traffic, Tensor x,
                       Tensor out);

// As AllGather(), but `out` is filled at `root` alone; elsewhere it is ignored.
absl::Status Gather(Collective& collective, Traffic traffic, int root, Tensor x,
                    Tensor out);

// `tensor` becomes that of `root`.
absl::Status Broadcast(Collective& collective, Traffic traffic, int root,
                       Tensor tensor);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_COLLECTIVE_OPS_H_
