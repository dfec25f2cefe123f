// The router's decisions: which requests come in, which group each goes to, and
// what happens when a group goes.
//
//   Submit ─► waiting ──a group is ready──► running ──► Remove
//     │          ▲  │ deadline, no group        │
//   refused      │  └──► refused               group lost, or full
//                └───── before the first token ─┴─ after it ──► refused
//
// Pure: no threads, locks, clocks, sockets, logs.  The shell takes its lock,
// calls one of the functions, lets go, and performs the actions.

#ifndef ROUTER_CORE_ROUTER_CORE_H_
#define ROUTER_CORE_ROUTER_CORE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/core/admission.h"
#include "router/core/registry.h"

namespace lapidary {

// Names a request inside this router; given by the shell, never used twice,
// ascending with arrival.
using RequestKey = uint64_t;

// Thread-compatible.
class RouterCore {
 public:
  struct Options {
    Registry::Options registry;
    AdmissionOptions admission;
    // How often a request is sent to a group before its first token.
    int max_tries = 3;
  };

  struct NewRequest {
    RequestKey key = 0;
    int prompt_tokens = 0;  // > 0
    int max_tokens = 0;     // 0: as many as the group's context allows.
    int priority = 0;       // Higher first, among those that wait.
    absl::Time deadline = absl::InfiniteFuture();
  };

  // Send the request to the group.
  struct Start {
    RequestKey request;
    GroupId group;
    int max_tokens;  // > 0
  };

  // Tell the client; the core has forgotten the request.  If it was running,
  // cancel its run.
  struct Failure {
    RequestKey request;
    Refusal refusal;
  };

  struct Actions {
    std::vector<Registry::Action> groups;
    std::vector<Start> starts;
    std::vector<Failure> failures;
  };

  struct Load {
    int running_requests = 0;  // Sent to a group and not finished.
    Backlog backlog;
  };

  RouterCore(const Options& options, absl::Time now);

  // Ends in a Start or a Failure, at once or later.
  void Submit(const NewRequest& request, absl::Time now, Actions& actions);

  // News of a running request; unknown keys are ignored.

  // Of its prompt, `tokens` are computed.
  void OnPrefilled(RequestKey key, int tokens);
  void OnFirstToken(RequestKey key);
  // Its group let go of it for no fault of the request.
  void OnRunLost(RequestKey key, const absl::Status& status, absl::Time now,
                 Actions& actions);
  // Its group has no room for it.  Starts at another that is ready and has not
  // refused it, or fails; `retry_after` is what the group says.
  void OnRunRefused(RequestKey key, const absl::Status& status,
                    absl::Duration retry_after, Actions& actions);
  // It ended, in whatever way, or its client went.
  void Remove(RequestKey key);

  // Refuses new requests from now on; those that are here go on.
  void Drain();

  // News of groups: see Registry.
  void OnDescribed(GroupId id, uint64_t attempt,
                   const absl::StatusOr<GroupDescription>& description,
                   absl::Time now, Actions& actions);
  void OnLoad(GroupId id, uint64_t attempt, const GroupLoad& load,
              absl::Time now, Actions& actions);
  void OnWatchEnded(GroupId id, uint64_t attempt, const absl::Status& status,
                    absl::Time now, Actions& actions);

  // What the time brings.  Call it every 100 ms or so.
  void Tick(absl::Time now, Actions& actions);

  const std::vector<Group>& groups() const { return registry_.groups(); }
  Load load() const;

 private:
  struct Request {
    NewRequest spec;
    absl::Time waits_since;
    std::optional<GroupId> group;  // Runs there; else it waits.
    int64_t unprefilled_tokens = 0;
    bool has_first_token = false;
    int tries = 0;  // Those that ended in a refusal apart.
    // Groups that had no room, since it last waited.
    std::vector<GroupId> refused_by;
    // The soonest that one of them may have.
    absl::Duration retry_after = absl::InfiniteDuration();
  };

  // Why a request that waits must wait no longer.
  std::optional<Refusal> CheckWaiting(const Request& request,
                                      absl::Time now) const;
  void FailWaiting(absl::Time now, Actions& actions);
  void StartWaiting(Actions& actions);
  void LoseGroup(GroupId id, absl::Time now, Actions& actions);
  void LoseRun(Request& request, absl::string_view reason, absl::Time now,
               Actions& actions);
  void HandleGone(size_t first_action, absl::Time now, Actions& actions);
  void LeaveGroup(Request& request);

  const Options options_;
  Registry registry_;
  std::map<RequestKey, Request> requests_;
  bool draining_ = false;
};

}  // namespace lapidary

#endif  // ROUTER_CORE_ROUTER_CORE_H_
