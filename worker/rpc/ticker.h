// Something done again and again, on gRPC's threads.

#ifndef WORKER_RPC_TICKER_H_
#define WORKER_RPC_TICKER_H_

#include <functional>
#include <memory>

#include "absl/time/time.h"

namespace lapidary {

// Calls a function every `period`.  Thread-safe.
class Ticker {
 public:
  // `tick` is called for the first time after one period.
  Ticker(absl::Duration period, std::function<void()> tick);
  // A call that has begun may still run afterwards.
  ~Ticker();

  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  class Alarm;
  // Shared with the timer that is under way.
  const std::shared_ptr<Alarm> alarm_;
};

}  // namespace lapidary

#endif  // WORKER_RPC_TICKER_H_
