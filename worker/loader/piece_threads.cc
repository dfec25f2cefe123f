#include "worker/loader/piece_threads.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include <pthread.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "common/mutex.h"

namespace lapidary {
namespace {

// What the threads share.
class Pieces {
 public:
  explicit Pieces(int num_pieces) : num_pieces_(num_pieces) {}

  void Work(const PieceWork& work) {
    for (int i = next_++; i < num_pieces_ && !failed_; i = next_++) {
      const absl::Status status = work(i);
      if (status.ok()) continue;
      MutexLock lock(mutex_);
      status_.Update(status);
      failed_ = true;
    }
  }

  absl::Status status() {
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  const int num_pieces_;
  std::atomic<int> next_ = 0;
  std::atomic<bool> failed_ = false;
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status RunPieces(const std::string& name, int num_threads, int num_pieces,
                       const std::function<PieceWork()>& new_work) {
  if (num_threads <= 0) {
    num_threads =
        std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
  }
  Pieces pieces(num_pieces);
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&, i] {
      pthread_setname_np(pthread_self(), absl::StrCat(name, "-", i).c_str());
      pieces.Work(new_work());
    });
  }
  for (std::thread& thread : threads) thread.join();
  return pieces.status();
}

}  // namespace lapidary
