// What a client has still to be sent.  While a client reads slowly, what waits
// for it grows together: progress replaces progress, delta joins delta.

#ifndef ROUTER_RPC_RESPONSE_QUEUE_H_
#define ROUTER_RPC_RESPONSE_QUEUE_H_

#include <cstdint>
#include <optional>

#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

// Thread-compatible.
class ResponseQueue {
 public:
  // Above this many pending bytes the router reads no more from the group.
  static constexpr int64_t kMaxBytes = 1 << 20;

  void AddProgress(v1::Progress progress);
  void AddDelta(v1::Delta delta);
  void AddCompleted(v1::Completed completed);

  bool empty() const;
  bool full() const { return delta_bytes_ > kMaxBytes; }

  // Progress first, then delta, then completed.
  std::optional<v1::GenerateResponse> TakeNext();

 private:
  std::optional<v1::Progress> progress_;
  std::optional<v1::Delta> delta_;
  int64_t delta_bytes_ = 0;  // About.
  std::optional<v1::Completed> completed_;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_RESPONSE_QUEUE_H_
