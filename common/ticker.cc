#include "common/ticker.h"

#include <pthread.h>

#include <utility>
#include <vector>

#include "common/steady_time.h"
#include "glog/logging.h"

namespace lapidary {

Ticker::Ticker(absl::Duration period)
    : period_(period), thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "ticker");
}

Ticker::~Ticker() {
  {
    MutexLock lock(mutex_);
    CHECK(ticks_.empty());
    stopped_ = true;
    stop_requested_.SignalAll();
  }
  thread_.join();
}

std::unique_ptr<Ticker::Subscription> Ticker::Subscribe(
    std::function<void()> tick) {
  MutexLock lock(mutex_);
  const int64_t id = next_id_++;
  ticks_[id] = std::make_shared<const std::function<void()>>(std::move(tick));
  return std::unique_ptr<Subscription>(new Subscription(*this, id));
}

Ticker::Subscription::~Subscription() {
  MutexLock lock(ticker_.mutex_);
  ticker_.ticks_.erase(id_);
}

void Ticker::Run() {
  std::vector<std::shared_ptr<const std::function<void()>>> round;
  absl::Time next = SteadyNow();
  while (true) {
    {
      MutexLock lock(mutex_);
      next = NextRound(next, period_, SteadyNow());
      while (!stopped_ && SteadyNow() < next) {
        stop_requested_.WaitFor(mutex_, next - SteadyNow());
      }
      if (stopped_) return;
      for (const auto& [id, tick] : ticks_) round.push_back(tick);
    }
    // Without the lock: a subscriber may end its subscription.
    for (const auto& tick : round) (*tick)();
    round.clear();
  }
}

}  // namespace lapidary
