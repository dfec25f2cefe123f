// Threads that turn requests into tokens, so that gRPC's own never do.
//
// A prompt of a million characters must not make short ones wait: the first
// thread takes short jobs only, the others whatever came first.

#ifndef ROUTER_RPC_TOKENIZE_POOL_H_
#define ROUTER_RPC_TOKENIZE_POOL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/mutex.h"

namespace lapidary {

// Thread-safe.
class TokenizePool {
 public:
  struct Options {
    int num_threads = 2;             // >= 2: one for short jobs and the others.
    int64_t short_bytes = 64 << 10;  // A job up to this is short.
    // What waits; more is refused.
    int max_jobs = 1024;
    int64_t max_bytes = 256 << 20;
  };

  explicit TokenizePool(const Options& options);
  // Runs what waits, then joins the threads.
  ~TokenizePool();

  TokenizePool(const TokenizePool&) = delete;
  TokenizePool& operator=(const TokenizePool&) = delete;

  // Runs `job`, which works on `bytes` of text, on one of the threads.
  //
  // Errors: RESOURCE_EXHAUSTED if too much waits.
  absl::Status Run(int64_t bytes, std::function<void()> job);

  int num_waiting() const;

 private:
  struct Job {
    uint64_t number;  // Ascending with arrival.
    int64_t bytes;
    std::function<void()> work;
  };
  enum class Takes { kShortJobs, kAllJobs };

  void WorkUntilClosed(Takes takes);
  std::deque<Job>* NextQueue(Takes takes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Job> short_jobs_ ABSL_GUARDED_BY(mutex_);
  std::deque<Job> long_jobs_ ABSL_GUARDED_BY(mutex_);
  int64_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_TOKENIZE_POOL_H_
