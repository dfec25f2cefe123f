// What the ranks of a group exchange.
//
// Everything is built of one operation, the exchange: tensors go to other ranks
// while tensors come from them.  All-gather, all-to-all, gather, broadcast and
// neighbours' sends are exchanges with different lists (collective_ops.h); a
// reduction is an exchange and a sum in the order of the ranks.
//
//   operation          each of N ranks receives, for x of B bytes
//   AllReduceSum       2 B (N-1) / N
//   ReduceScatterSum   B (N-1) / N
//   AllGather          B (N-1)          (x is this rank's part)
//   exchange           the tensors of its list

#ifndef WORKER_PARALLEL_COLLECTIVE_H_
#define WORKER_PARALLEL_COLLECTIVE_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/deadline.h"
#include "kernels/tensor.h"
#include "worker/parallel/transfer_counters.h"

namespace lapidary {

// A tensor that goes to a rank or comes from one.
struct RankPart {
  int rank = 0;
  Tensor tensor;
};

// One rank's end of a group.  Every rank calls the same operations in the same
// order, with shapes that fit each other.  Owned by the rank's engine thread.
//
// Errors of all operations: UNAVAILABLE if a rank is gone, DEADLINE_EXCEEDED
// if one does not do its part in time; each names the rank where it is known.
// The group cannot go on after one.
class Collective {
 public:
  using ExchangeId = int64_t;

  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // What is called from now on ends by `deadline`.  Never at first.
  virtual void SetDeadline(Deadline deadline) = 0;

  // x becomes the sum of all ranks' x, in fp32, in the order of the ranks,
  // rounded once at the end: the same bits on every rank.
  //
  // REQUIRES: x is dense (stride == cols).
  virtual absl::Status AllReduceSum(Traffic traffic, Tensor x) = 0;

  // out [rows, cols] becomes rank()'s share of the rows of that sum, where x is
  // [size() * rows, cols].
  //
  // REQUIRES: both are dense.
  virtual absl::Status ReduceScatterSum(Traffic traffic, Tensor x,
                                        Tensor out) = 0;

  // Starts an exchange and returns; Wait() ends it.  Several may be under way.
  // `kind` is what it is counted as.
  //
  // REQUIRES: between two ranks, the k-th tensor that one sends and the k-th
  // that the other receives are of one shape and dtype; no part is rank()'s
  // own; all tensors stay, and the sent ones unchanged, until Wait() returns.
  virtual absl::StatusOr<ExchangeId> Start(
      CollectiveKind kind, Traffic traffic, std::span<const RankPart> sends,
      std::span<const RankPart> receives) = 0;
  // Each exchange is waited for once.
  virtual absl::Status Wait(ExchangeId id) = 0;

  virtual const TransferCounters& counters() const = 0;

  // Bytes of memory that it holds for what it packs and adds up; stays at the
  // largest so far.
  virtual int64_t memory_bytes() const = 0;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_COLLECTIVE_H_
