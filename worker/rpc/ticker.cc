#include "worker/rpc/ticker.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "common/mutex.h"
#include "grpcpp/alarm.h"

namespace lapidary {

class Ticker::Alarm : public std::enable_shared_from_this<Alarm> {
 public:
  Alarm(absl::Duration period, std::function<void()> tick)
      : period_(period), tick_(std::move(tick)) {}

  void Set() {
    MutexLock lock(mutex_);
    if (stopped_) return;
    // A new one each time: the old one may be what is calling.
    timer_ = std::make_unique<grpc::Alarm>();
    timer_->Set(absl::ToChronoTime(absl::Now() + period_),
                [self = shared_from_this()](bool expired) {
                  if (!expired) return;
                  self->tick_();
                  self->Set();
                });
  }

  void Stop() {
    MutexLock lock(mutex_);
    stopped_ = true;
    timer_.reset();  // Calls back with `expired` false, on another thread.
  }

 private:
  const absl::Duration period_;
  const std::function<void()> tick_;

  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::Alarm> timer_ ABSL_GUARDED_BY(mutex_);
};

Ticker::Ticker(absl::Duration period, std::function<void()> tick)
    : alarm_(std::make_shared<Alarm>(period, std::move(tick))) {
  alarm_->Set();
}

Ticker::~Ticker() { alarm_->Stop(); }

}  // namespace lapidary
