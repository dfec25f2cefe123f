// What the ranks of a group exchange.

#ifndef WORKER_PARALLEL_COLLECTIVE_H_
#define WORKER_PARALLEL_COLLECTIVE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/tensor.h"

namespace lapidary {

// One rank's end of a group.  Every rank calls the same operations in the same
// order with the same shapes; a call returns when this rank's part is done.
// Owned by the rank's engine thread.
//
// Errors: UNAVAILABLE if a rank is gone.  The group cannot go on after one.
class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x becomes the sum of all ranks' x, added in the order of the ranks.
  virtual absl::Status AllReduceSum(Tensor x) = 0;

  // out [size * rows, cols] becomes the ranks' x [rows, cols], in their order.
  virtual absl::Status AllGather(Tensor x, Tensor out) = 0;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_COLLECTIVE_H_
