// Where the engine shows how it stands, for whoever watches.

#ifndef WORKER_ENGINE_STATE_BOARD_H_
#define WORKER_ENGINE_STATE_BOARD_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/group_status.h"
#include "common/mutex.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/scheduler.h"

namespace lapidary {

struct EngineState {
  bool draining = false;  // For good.
  bool stopped = false;   // For good: this is the last state.
  Scheduler::Load load = {};
  KvCache::PoolUse global_pages = {};
  KvCache::PoolUse window_pages = {};
  // Over recent steps; 0 until there was one.
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  std::vector<KvCache::PoolUse> rank_global_pages = {};  // By rank.
  int replica_pages = 0;                                 // Used on each rank.
  PromptSplit last_split = {};
  // Why a group that has stopped failed, and the cause in a word.
  std::string failure = {};
  std::string failure_cause = {};
};

// Thread-safe.
class StateBoard {
 public:
  using ListenerId = int64_t;

  EngineState state() const;

  // Calls the listeners if requests came or went, or if the engine has stopped;
  // what changes at every step is only stored.  `draining` stays as
  // PublishDraining() left it.
  void Publish(EngineState state);
  void PublishDraining();
  // The group ends because a rank failed: the last state.  Of several failures
  // the first is kept.  Does nothing once the engine has stopped.
  void PublishFailure(const std::string& failure, const std::string& cause);

  // `listener` is called by the thread that publishes; it should be short.  A
  // call that has begun may still run when RemoveListener() returns.
  ListenerId AddListener(std::function<void()> listener);
  void RemoveListener(ListenerId id);

 private:
  using Listeners = std::map<ListenerId, std::function<void()>>;

  mutable Mutex mutex_;
  EngineState state_ ABSL_GUARDED_BY(mutex_);
  ListenerId next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  Listeners listeners_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_STATE_BOARD_H_
