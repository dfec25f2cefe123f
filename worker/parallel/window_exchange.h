// What a window layer exchanges in a round under token split.
//
// Every rank computes all heads of its range.  Before it attends it needs the
// window keys of its halo, and after the round the ranks that own the heads
// need those of the tail in their pages:
//
//   halo   positions of the round:     from the ranks that computed them
//          positions before the round: from the pages of the heads' ranks
//   tail   from the ranks that computed it, each rank its own heads
//
// So between any two steps a request's window lies in its pages, head-split,
// whatever the layouts of the steps were.

#ifndef WORKER_PARALLEL_WINDOW_EXCHANGE_H_
#define WORKER_PARALLEL_WINDOW_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/context_split.h"

namespace lapidary {

// Owned by the rank's engine thread.  All ranks call the same operations in the
// same order, those with an empty range as well.
//
// Errors of the operations: the collective's.
class WindowExchange {
 public:
  // The largest of all window layers.
  struct Limits {
    DType dtype = DType::kF32;
    int window = 0;      // W
    int key_cols = 0;    // 2 key_half of this rank's KV heads together.
    int value_cols = 0;  // d of them.
  };

  // One layer in one round.
  struct Layer {
    KvPlanes planes;   // Of this rank, with the KV heads that it holds.
    int kv_heads = 0;  // K, of the whole layer.
    // All heads of the halo, which is filled here, then of this rank's range,
    // which is there.
    Tensor keys;    // [halo + range, K * 2 key_half]
    Tensor values;  // [halo + range, K * d]
    // The sequence's window pages: pages, first_page and num_pages.
    AttentionSequence pages;
  };

  // References must outlive it.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<WindowExchange>> Create(
      const Limits& limits, Backend& backend, Collective& collective);
  ~WindowExchange();

  WindowExchange(const WindowExchange&) = delete;
  WindowExchange& operator=(const WindowExchange&) = delete;

  static int64_t MemoryBytes(const Limits& limits);

  // Sends off what others need of this rank.  `layer.keys` and values stay
  // unchanged until FinishTail().
  absl::Status Start(const RoundSplit& split, const Layer& layer);

  // Waits for the halo.
  absl::Status FinishHalo();

  // Waits for the tail and writes it to this rank's pages.
  absl::Status FinishTail();

 private:
  // Rows of keys and the values beside them.
  struct KeyRows {
    Tensor keys;
    Tensor values;
  };

  WindowExchange(const Limits& limits, Backend& backend, Collective& collective)
      : limits_(limits), backend_(backend), collective_(collective) {}

  absl::Status Allocate();
  KvHeadShare Share(int rank) const;
  // The rows of `range` in the layer's keys and values.
  KeyRows StepRows(PositionRange range) const;
  // The columns of a rank's heads.
  KeyRows HeadsOf(const KeyRows& rows, int rank) const;
  KeyRows Staged(void* keys, void* values, int first, int count) const;
  void ReadEarlierWindow();
  void ListHalo();
  void ListTail();
  void Send(int rank, const KeyRows& rows);
  void Receive(int rank, const KeyRows& rows);
  void Copy(const KeyRows& from, const KeyRows& to);
  absl::StatusOr<Collective::ExchangeId> StartListed(CollectiveKind kind);

  const Limits limits_;
  Backend& backend_;
  Collective& collective_;
  void* earlier_keys_ = nullptr;  // [W - 1, key_cols], before the round.
  void* earlier_values_ = nullptr;
  void* tail_keys_ = nullptr;  // [W - 1, key_cols]
  void* tail_values_ = nullptr;

  // Of the layer under way.
  const RoundSplit* split_ = nullptr;
  Layer layer_;
  PositionRange earlier_;  // Positions before the round that a halo holds.
  Collective::ExchangeId halo_ = 0;
  Collective::ExchangeId tail_ = 0;
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_WINDOW_EXCHANGE_H_
