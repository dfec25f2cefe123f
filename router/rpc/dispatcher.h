// The shell around the router core: takes the lock, lets the core decide, lets
// go, and performs the actions.

#ifndef ROUTER_RPC_DISPATCHER_H_
#define ROUTER_RPC_DISPATCHER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "router/core/router_core.h"
#include "router/rpc/discovery.h"
#include "router/rpc/worker_client.h"

namespace lapidary {

// Thread-safe.  Has one thread, the timer.
class Dispatcher {
 public:
  // What a request hears.  Called without locks held, on any thread, and maybe
  // once more after Remove() if that comes at the same time.  Never copied.
  struct Handler {
    // Run at this group, generating `max_tokens`; may come again if a group
    // that had not begun to answer is lost or full.
    std::function<void(WorkerClient& client, const std::string& group,
                       int max_tokens)>
        on_start;
    // The last call.
    std::function<void(const Refusal& refusal)> on_failure;
    // Some time has passed.
    std::function<void(absl::Time now)> on_tick;
  };

  // `clients`: one for each of options.registry.addresses.  `clock` must
  // outlive the dispatcher.
  Dispatcher(const RouterCore::Options& options,
             std::vector<std::unique_ptr<WorkerClient>> clients, Clock& clock);
  // REQUIRES: every request has ended.
  ~Dispatcher();

  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  RequestKey NewKey();
  // From now on `handler` hears of the request: first of the time alone.
  void Add(RequestKey key, Handler handler);

  // See RouterCore for these.

  // REQUIRES: it was added, and not removed; or Remove() follows.
  void Submit(const RouterCore::NewRequest& request);
  void OnPrefilled(RequestKey key, int tokens);
  void OnFirstToken(RequestKey key);
  void OnRunLost(RequestKey key, const absl::Status& status);
  void OnRunRefused(RequestKey key, const absl::Status& status,
                    absl::Duration retry_after);
  void Remove(RequestKey key);
  void Drain();

  struct Snapshot {
    std::vector<Group> groups;
    RouterCore::Load load;
  };
  Snapshot snapshot() const;

  // Called ten times a second; null for nothing.  When set_on_tick() returns,
  // the last callback is not under way any more.
  void set_on_tick(std::function<void(const Snapshot&)> callback);

 private:
  using Step = std::function<void(RouterCore& core, absl::Time now,
                                  RouterCore::Actions& actions)>;
  // Shared by handlers_ and those who are calling it.
  using SharedHandler = std::shared_ptr<const Handler>;

  // Lock, step, unlock, act.  Nothing once the dispatcher stops.
  void Do(const Step& step);
  void Act(const RouterCore::Actions& actions);
  SharedHandler FindHandler(RequestKey key);
  SharedHandler TakeHandler(RequestKey key);
  void Tick();
  void TickUntilStopped();
  Discovery::Events CoreEvents();
  void LogChanges() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock& clock_;

  Mutex tick_mutex_;  // Taken before mutex_.
  std::function<void(const Snapshot&)> on_tick_ ABSL_GUARDED_BY(tick_mutex_);

  const std::vector<std::string> addresses_;

  mutable Mutex mutex_;
  CondVar changed_;  // stopped_ or num_acting_.
  RouterCore core_ ABSL_GUARDED_BY(mutex_);
  std::map<RequestKey, SharedHandler> handlers_ ABSL_GUARDED_BY(mutex_);
  RequestKey next_key_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<GroupState> last_states_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  int num_acting_ ABSL_GUARDED_BY(mutex_) = 0;  // Threads inside Act().

  // Destroyed before what is above: their callbacks use it.
  std::unique_ptr<Discovery> discovery_;
  std::vector<std::unique_ptr<WorkerClient>> clients_;
  std::thread timer_;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_DISPATCHER_H_
