// How threads meet: a first-in-first-out queue with a bound.

#ifndef COMMON_BOUNDED_QUEUE_H_
#define COMMON_BOUNDED_QUEUE_H_

#include <deque>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/mutex.h"

namespace lapidary {

// Thread-safe; any number of producers and consumers.
template <typename T>
class BoundedQueue {
 public:
  // REQUIRES: capacity > 0.
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Appends `item` unless the queue is full or closed; says whether it did.
  [[nodiscard]] bool TryPush(T item) {
    MutexLock lock(mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    not_empty_.SignalOne();
    return true;
  }

  // Waits for an item.  Empty once the queue is closed and drained.
  std::optional<T> Pop() {
    MutexLock lock(mutex_);
    while (items_.empty() && !closed_) not_empty_.Wait(mutex_);
    if (items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // All items that are there now, in order.  Does not wait.
  std::vector<T> PopAll() {
    MutexLock lock(mutex_);
    return TakeAll();
  }

  // As PopAll(), but waits for the first item, a Close(), or `timeout`.
  std::vector<T> PopAllFor(absl::Duration timeout) {
    MutexLock lock(mutex_);
    const absl::Time deadline = absl::Now() + timeout;
    while (items_.empty() && !closed_) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) break;
      not_empty_.WaitFor(mutex_, left);
    }
    return TakeAll();
  }

  // Lets Pop() return what is left and then nothing; TryPush() fails from now.
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    not_empty_.SignalAll();
  }

  bool closed() const {
    MutexLock lock(mutex_);
    return closed_;
  }

 private:
  std::vector<T> TakeAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<T> items(std::make_move_iterator(items_.begin()),
                         std::make_move_iterator(items_.end()));
    items_.clear();
    return items;
  }

  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar not_empty_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace lapidary

#endif  // COMMON_BOUNDED_QUEUE_H_
