// The operations of a group whose tensors are in the host's memory.

#ifndef WORKER_PARALLEL_HOST_COLLECTIVE_H_
#define WORKER_PARALLEL_HOST_COLLECTIVE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/deadline.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/message_packer.h"
#include "worker/parallel/transfer_counters.h"
#include "worker/parallel/transport.h"

namespace lapidary {

// Collective over any transport: the same bits with each.
//
// An exchange is at most one message to each rank and one from it.  A sum over
// N ranks cuts x into N shares of elements, which differ by one at most:
//
//                  share 0    share 1    share 2
//   rank 0 of 3     adds       sends      sends       then each rank sends its
//   rank 1          sends      adds       sends       sums to the others
//   rank 2          sends      sends      adds
//
// Two ranks exchange all of x instead and both add it all: as many bytes, but
// one message after the other less.
//
// Fails for good: after an error every operation returns it, and no tensor of
// an exchange under way is touched any longer.
class HostCollective : public Collective {
 public:
  // Exchanges under way at once.
  static constexpr int kMaxExchanges = 16;

  explicit HostCollective(std::unique_ptr<Transport> transport);

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  void SetDeadline(Deadline deadline) override { deadline_ = deadline; }
  absl::Status AllReduceSum(Traffic traffic, Tensor x) override;
  absl::Status ReduceScatterSum(Traffic traffic, Tensor x, Tensor out) override;

  // REQUIRES: fewer than kMaxExchanges are under way.
  absl::StatusOr<ExchangeId> Start(CollectiveKind kind, Traffic traffic,
                                   std::span<const RankPart> sends,
                                   std::span<const RankPart> receives) override;
  absl::Status Wait(ExchangeId id) override;

  const TransferCounters& counters() const override { return counters_; }
  int64_t memory_bytes() const override;

 private:
  // An exchange under way.
  struct Pending {
    static constexpr ExchangeId kNone = -1;

    ExchangeId id = kNone;
    CollectiveKind kind = CollectiveKind::kSendReceive;
    Traffic traffic = Traffic::kControl;
    TransferCount count;
    MessagePacker sends;
    MessagePacker receives;
    StagingMemory staging;  // Of both.
  };

  absl::StatusOr<Pending*> Begin(std::span<const RankPart> sends,
                                 std::span<const RankPart> receives);
  absl::Status StartMessages(Pending& pending);
  absl::Status Finish(Pending& pending);
  absl::Status Exchange(std::span<const RankPart> sends,
                        std::span<const RankPart> receives,
                        TransferCount& count);
  absl::Status AddUp(Tensor own, Tensor out, TransferCount& count);
  absl::Status ShareSums(Tensor x, TransferCount& count);
  absl::Status Fail(absl::Status status);

  Pending& PendingOf(ExchangeId id);

  Deadline deadline_ = Deadline::Never();
  absl::Status status_;
  ExchangeId next_id_ = 0;
  TransferCounters counters_;

  // Kept for their memory.
  std::array<Pending, kMaxExchanges> pending_;
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
  std::vector<const void*> addends_;
  StagingMemory others_;

  // Goes first: its messages lie in what is above.
  const std::unique_ptr<Transport> transport_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_HOST_COLLECTIVE_H_
