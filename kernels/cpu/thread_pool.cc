#include "kernels/cpu/thread_pool.h"

#include "glog/logging.h"

namespace lapidary {
namespace {

// About 20 microseconds: longer than the gaps between the loops of a step.
constexpr int kSpins = 2000;

void Pause() { __builtin_ia32_pause(); }

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  CHECK_GT(num_threads, 0);
  workers_.reserve(num_threads - 1);
  for (int i = 1; i < num_threads; ++i) {
    workers_.emplace_back([this, i] { Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  ParallelFor(num_threads(), [](int, int) {});
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int num_items, Body body) {
  if (workers_.empty() || (num_items == 1 && !stopping_)) {
    for (int i = 0; i < num_items; ++i) body(i, 0);
    return;
  }
  body_ = &body;
  num_items_ = num_items;
  next_item_.store(0, std::memory_order_relaxed);
  busy_workers_.store(static_cast<int>(workers_.size()),
                      std::memory_order_relaxed);
  {
    MutexLock lock(mutex_);
    loop_.fetch_add(1, std::memory_order_release);
    if (sleepers_ > 0) loop_began_.SignalAll();
  }
  TakeItems(/*thread=*/0);
  for (int spins = 0; busy_workers_.load(std::memory_order_acquire) > 0;
       ++spins) {
    // A worker may have lost its core: let it run.
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::Work(int thread) {
  uint64_t seen = 0;
  for (bool stop = false; !stop;) {
    seen = WaitForLoop(seen);
    stop = stopping_;
    TakeItems(thread);
    busy_workers_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::TakeItems(int thread) {
  const int num_items = num_items_;
  while (true) {
    const int item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= num_items) return;
    (*body_)(item, thread);
  }
}

uint64_t ThreadPool::WaitForLoop(uint64_t seen) {
  for (int spins = 0; spins < kSpins; ++spins) {
    const uint64_t loop = loop_.load(std::memory_order_acquire);
    if (loop != seen) return loop;
    Pause();
  }
  MutexLock lock(mutex_);
  ++sleepers_;
  while (loop_.load(std::memory_order_acquire) == seen) {
    loop_began_.Wait(mutex_);
  }
  --sleepers_;
  return loop_.load(std::memory_order_acquire);
}

}  // namespace lapidary
