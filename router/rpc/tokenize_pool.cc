#include "router/rpc/tokenize_pool.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace lapidary {

TokenizePool::TokenizePool(const Options& options) : options_(options) {
  CHECK_GE(options.num_threads, 2);
  for (int i = 0; i < options.num_threads; ++i) {
    const Takes takes = i == 0 ? Takes::kShortJobs : Takes::kAllJobs;
    threads_.emplace_back([this, takes, i] {
      pthread_setname_np(pthread_self(), absl::StrCat("tokenize-", i).c_str());
      WorkUntilClosed(takes);
    });
  }
}

TokenizePool::~TokenizePool() {
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  changed_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status TokenizePool::Run(int64_t bytes, std::function<void()> job) {
  {
    MutexLock lock(mutex_);
    const size_t jobs = short_jobs_.size() + long_jobs_.size();
    if (jobs >= static_cast<size_t>(options_.max_jobs) ||
        (jobs > 0 && waiting_bytes_ + bytes > options_.max_bytes)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no room to tokenize ", bytes, " bytes: ", jobs,
                       " requests with ", waiting_bytes_, " bytes wait"));
    }
    auto& queue = bytes <= options_.short_bytes ? short_jobs_ : long_jobs_;
    queue.push_back({next_number_++, bytes, std::move(job)});
    waiting_bytes_ += bytes;
  }
  // All of them: which thread may take it depends on its size.
  changed_.SignalAll();
  return absl::OkStatus();
}

int TokenizePool::num_waiting() const {
  MutexLock lock(mutex_);
  return static_cast<int>(short_jobs_.size() + long_jobs_.size());
}

void TokenizePool::WorkUntilClosed(Takes takes) {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      std::deque<Job>* queue = NextQueue(takes);
      while (queue == nullptr && !closed_) {
        changed_.Wait(mutex_);
        queue = NextQueue(takes);
      }
      if (queue == nullptr) return;
      work = std::move(queue->front().work);
      waiting_bytes_ -= queue->front().bytes;
      queue->pop_front();
    }
    work();
  }
}

// The queue whose first job this thread should take; null if there is none.
std::deque<TokenizePool::Job>* TokenizePool::NextQueue(Takes takes) {
  if (takes == Takes::kShortJobs || long_jobs_.empty())
    return short_jobs_.empty() ? nullptr : &short_jobs_;
  if (short_jobs_.empty()) return &long_jobs_;
  return short_jobs_.front().number < long_jobs_.front().number ? &short_jobs_
                                                                : &long_jobs_;
}

}  // namespace lapidary
