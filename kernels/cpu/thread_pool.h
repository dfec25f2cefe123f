// A fixed set of threads that run one parallel loop at a time, with little
// delay: between the short loops of a decode step the threads spin for some
// microseconds before they sleep.

#ifndef KERNELS_CPU_THREAD_POOL_H_
#define KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "common/mutex.h"

namespace lapidary {

// Owned by one thread, which alone calls ParallelFor().
class ThreadPool {
 public:
  // `thread` is in [0, num_threads()): an index for memory of its own.
  using Body = absl::FunctionRef<void(int item, int thread)>;

  // The caller is one of the threads.  REQUIRES: num_threads > 0.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i, thread) once for each i in [0, num_items); returns when all
  // calls have.  A thread takes the next item when it is done with one, so an
  // item's result must not depend on who computes it.
  void ParallelFor(int num_items, Body body);

 private:
  void Work(int thread);
  void TakeItems(int thread);
  // Waits until a loop after `seen` begins and returns its number.
  uint64_t WaitForLoop(uint64_t seen);

  // The loop that runs.  Written by the owner before it counts loop_ up, and
  // not before all workers are done with the last.
  const Body* body_ = nullptr;
  int num_items_ = 0;
  bool stopping_ = false;

  alignas(64) std::atomic<uint64_t> loop_{0};
  alignas(64) std::atomic<int> next_item_{0};
  alignas(64) std::atomic<int> busy_workers_{0};

  Mutex mutex_;  // Orders going to sleep with counting loop_ up.
  CondVar loop_began_;
  int sleepers_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<std::thread> workers_;
};

}  // namespace lapidary

#endif  // KERNELS_CPU_THREAD_POOL_H_
