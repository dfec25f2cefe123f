// Things done again and again, on one thread.

#ifndef COMMON_TICKER_H_
#define COMMON_TICKER_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "common/mutex.h"

namespace lapidary {

// Calls its subscribers every `period`, one after the other, so they must not
// wait.  Calls of gRPC use it, too: an alarm of gRPC that is late when it is
// set may call back on the thread that sets it, under the locks that it holds.
//
// Thread-safe.
class Ticker {
 public:
  explicit Ticker(absl::Duration period);
  // Joins the thread.
  // REQUIRES: there are no subscriptions.
  ~Ticker();

  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  // Ends the calls on destruction, which does not wait: a call that has begun
  // may still run.
  class Subscription {
   public:
    ~Subscription();

    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

   private:
    friend class Ticker;
    Subscription(Ticker& ticker, int64_t id) : ticker_(ticker), id_(id) {}

    Ticker& ticker_;
    const int64_t id_;
  };

  // When the round after the one that was due at `last` is due: a round that
  // comes late or lasts delays no other, and those that were missed are not
  // made up for.
  static absl::Time NextRound(absl::Time last, absl::Duration period,
                              absl::Time now) {
    return std::max(last + period, now);
  }

  // `tick` is called for the first time within one period, never on the
  // caller's thread.
  [[nodiscard]] std::unique_ptr<Subscription> Subscribe(
      std::function<void()> tick);

 private:
  void Run();

  const absl::Duration period_;

  Mutex mutex_;
  CondVar stop_requested_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  // Shared with the round of calls that is under way.
  std::map<int64_t, std::shared_ptr<const std::function<void()>>> ticks_
      ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // Last: it uses all the others.
};

}  // namespace lapidary

#endif  // COMMON_TICKER_H_
