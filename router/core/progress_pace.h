// When a client that waits for its first token is told that it still waits.

#ifndef ROUTER_CORE_PROGRESS_PACE_H_
#define ROUTER_CORE_PROGRESS_PACE_H_

#include "absl/time/time.h"

namespace lapidary {

// Thread-compatible.  Pure: whoever asks every kTick keeps the promise of
// inference.proto, a message every second at least.
class ProgressPace {
 public:
  // Silence that is long enough.  With kTick it stays below a second, and the
  // rest is for the way to the client.
  static constexpr absl::Duration kSilence = absl::Milliseconds(800);
  // How often to ask.
  static constexpr absl::Duration kTick = absl::Milliseconds(100);

  // `now`: when the client began to wait.
  explicit ProgressPace(absl::Time now) : last_message_(now) {}

  // The client was sent a message.
  void OnMessage(absl::Time now) { last_message_ = now; }

  // Whether to send one.
  bool IsDue(absl::Time now) const { return now - last_message_ >= kSilence; }

 private:
  absl::Time last_message_;
};

}  // namespace lapidary

#endif  // ROUTER_CORE_PROGRESS_PACE_H_
