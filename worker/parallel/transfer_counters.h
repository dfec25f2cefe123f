// Counts of what a rank has exchanged, by operation and by what it was for.

#ifndef WORKER_PARALLEL_TRANSFER_COUNTERS_H_
#define WORKER_PARALLEL_TRANSFER_COUNTERS_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lapidary {

enum class CollectiveKind : uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kAllToAll,
  kGather,
  kBroadcast,
  kSendReceive,
};
inline constexpr int kNumCollectiveKinds = 7;

// What an operation was for.
enum class Traffic : uint8_t {
  kControl,  // Step plans, and what ranks tell each other about themselves.
  kWindowLayer,
  kGlobalLayer,
  kFeedForward,
  kHead,
};
inline constexpr int kNumTraffics = 5;

// Names for metrics' labels: "all_reduce", "window_layer".
absl::string_view NameOf(CollectiveKind kind);
absl::string_view NameOf(Traffic traffic);

struct TransferCount {
  int64_t calls = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  // In the operation, or in Start() and Wait(): packing, sums, and waiting for
  // slower ranks included.
  absl::Duration time = absl::ZeroDuration();

  TransferCount& operator+=(const TransferCount& other);
};

// Counts since the group was formed; of a group of one, all stay 0.
//
// Thread-compatible: of the rank's engine thread, which may copy it.
class TransferCounters {
 public:
  const TransferCount& of(CollectiveKind kind, Traffic traffic) const;
  TransferCount of(CollectiveKind kind) const;
  TransferCount Total() const;

  void Add(CollectiveKind kind, Traffic traffic, const TransferCount& count);

 private:
  std::array<std::array<TransferCount, kNumTraffics>, kNumCollectiveKinds>
      counts_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_TRANSFER_COUNTERS_H_
