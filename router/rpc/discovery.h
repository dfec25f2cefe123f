// Performs what the registry decides: asks the groups of the list what they are
// and listens to their news.

#ifndef ROUTER_RPC_DISCOVERY_H_
#define ROUTER_RPC_DISCOVERY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/mutex.h"
#include "router/core/group.h"
#include "router/core/registry.h"
#include "router/rpc/worker_client.h"

namespace lapidary {

// "host:port,host:port": at least one, none twice.
//
// Errors: INVALID_ARGUMENT, naming the entry.
absl::StatusOr<std::vector<std::string>> ParseGroupList(absl::string_view list);

// Thread-safe.
class Discovery {
 public:
  // Where the news goes: RouterCore's functions of the same names.
  struct Events {
    std::function<void(GroupId, uint64_t attempt,
                       const absl::StatusOr<GroupDescription>&)>
        on_described;
    std::function<void(GroupId, uint64_t attempt, const GroupLoad&)> on_load;
    std::function<void(GroupId, uint64_t attempt, const absl::Status&)>
        on_watch_ended;
  };

  // `clients`, one a group, must outlive the Discovery and be destroyed before
  // what `events` refers to.
  Discovery(std::vector<WorkerClient*> clients, Events events);

  // Never calls an event before it returns.
  void Perform(const Registry::Action& action);

 private:
  void Watch(GroupId id, uint64_t attempt);

  const std::vector<WorkerClient*> clients_;
  const Events events_;
  Mutex mutex_;
  // By group: what is listened to, kept by the client too; null if nothing.
  std::vector<std::shared_ptr<WorkerStream>> watches_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lapidary

#endif  // ROUTER_RPC_DISCOVERY_H_
