#include "worker/parallel/transfer_counters.h"

#include "glog/logging.h"

namespace lapidary {

absl::string_view NameOf(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllReduce:
      return "all_reduce";
    case CollectiveKind::kReduceScatter:
      return "reduce_scatter";
    case CollectiveKind::kAllGather:
      return "all_gather";
    case CollectiveKind::kAllToAll:
      return "all_to_all";
    case CollectiveKind::kGather:
      return "gather";
    case CollectiveKind::kBroadcast:
      return "broadcast";
    case CollectiveKind::kSendReceive:
      return "send_receive";
  }
  LOG(FATAL) << "no collective kind: " << static_cast<int>(kind);
}

absl::string_view NameOf(Traffic traffic) {
  switch (traffic) {
    case Traffic::kControl:
      return "control";
    case Traffic::kWindowLayer:
      return "window_layer";
    case Traffic::kGlobalLayer:
      return "global_layer";
    case Traffic::kFeedForward:
      return "feed_forward";
    case Traffic::kHead:
      return "head";
  }
  LOG(FATAL) << "no traffic: " << static_cast<int>(traffic);
}

TransferCount& TransferCount::operator+=(const TransferCount& other) {
  calls += other.calls;
  bytes_sent += other.bytes_sent;
  bytes_received += other.bytes_received;
  time += other.time;
  return *this;
}

const TransferCount& TransferCounters::of(CollectiveKind kind,
                                          Traffic traffic) const {
  return counts_[static_cast<int>(kind)][static_cast<int>(traffic)];
}

TransferCount TransferCounters::of(CollectiveKind kind) const {
  TransferCount sum;
  for (const TransferCount& count : counts_[static_cast<int>(kind)]) {
    sum += count;
  }
  return sum;
}

TransferCount TransferCounters::Total() const {
  TransferCount total;
  for (const auto& by_traffic : counts_) {
    for (const TransferCount& count : by_traffic) total += count;
  }
  return total;
}

void TransferCounters::Add(CollectiveKind kind, Traffic traffic,
                           const TransferCount& count) {
  counts_[static_cast<int>(kind)][static_cast<int>(traffic)] += count;
}

}  // namespace lapidary
