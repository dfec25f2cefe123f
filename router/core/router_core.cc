#include "router/core/router_core.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "router/core/placement.h"

namespace lapidary {
namespace {

// When a client may come again after its group was lost.
constexpr absl::Duration kLostGroupRetry = absl::Seconds(1);

// The least memory that a request can do with.
int64_t ContextTokens(const RouterCore::NewRequest& request) {
  return int64_t{request.prompt_tokens} + std::max(request.max_tokens, 1);
}

}  // namespace

RouterCore::RouterCore(const Options& options, absl::Time now)
    : options_(options), registry_(options.registry, now) {}

void RouterCore::Submit(const NewRequest& request, absl::Time now,
                        Actions& actions) {
  std::optional<Refusal> refusal;
  if (draining_) {
    refusal = {RefusalCause::kDraining,
               absl::UnavailableError("this router is shutting down"),
               absl::Seconds(1)};
  } else {
    refusal = Admit(options_.admission, load().backlog, groups(),
                    request.prompt_tokens, ContextTokens(request),
                    request.deadline, now);
  }
  if (refusal.has_value()) {
    actions.failures.push_back({request.key, *std::move(refusal)});
    return;
  }
  Request& added = requests_[request.key];
  added.spec = request;
  added.waits_since = now;
  StartWaiting(actions);
}

void RouterCore::OnPrefilled(RequestKey key, int tokens) {
  const auto it = requests_.find(key);
  if (it == requests_.end() || !it->second.group.has_value()) return;
  Request& request = it->second;
  const int64_t left = std::max(request.spec.prompt_tokens - tokens, 0);
  if (left >= request.unprefilled_tokens) return;
  registry_.RemoveTokens(*request.group, request.unprefilled_tokens - left);
  request.unprefilled_tokens = left;
}

void RouterCore::OnFirstToken(RequestKey key) {
  const auto it = requests_.find(key);
  if (it == requests_.end()) return;
  OnPrefilled(key, it->second.spec.prompt_tokens);
  it->second.has_first_token = true;
}

void RouterCore::OnRunLost(RequestKey key, const absl::Status& status,
                           absl::Time now, Actions& actions) {
  const auto it = requests_.find(key);
  if (it == requests_.end() || !it->second.group.has_value()) return;
  registry_.OnRequestLost(*it->second.group, status.message(), now);
  LoseRun(it->second, status.message(), now, actions);
  StartWaiting(actions);
}

void RouterCore::OnRunRefused(RequestKey key, const absl::Status& status,
                              absl::Duration retry_after, Actions& actions) {
  const auto it = requests_.find(key);
  if (it == requests_.end() || !it->second.group.has_value()) return;
  Request& request = it->second;
  const std::string& address = groups()[*request.group].address;
  request.refused_by.push_back(*request.group);
  request.retry_after = std::min(request.retry_after, retry_after);
  --request.tries;
  LeaveGroup(request);
  if (!request.has_first_token) StartWaiting(actions);
  if (request.group.has_value()) return;
  actions.failures.push_back({key,
                              {RefusalCause::kQueueFull,
                               absl::ResourceExhaustedError(absl::StrCat(
                                   "group ", address, ": ", status.message())),
                               request.retry_after}});
  requests_.erase(it);
}

void RouterCore::Remove(RequestKey key) {
  const auto it = requests_.find(key);
  if (it == requests_.end()) return;
  LeaveGroup(it->second);
  requests_.erase(it);
}

void RouterCore::Drain() { draining_ = true; }

void RouterCore::OnDescribed(
    GroupId id, uint64_t attempt,
    const absl::StatusOr<GroupDescription>& description, absl::Time now,
    Actions& actions) {
  const size_t first_action = actions.groups.size();
  registry_.OnDescribed(id, attempt, description, now, actions.groups);
  HandleGone(first_action, now, actions);
}

void RouterCore::OnLoad(GroupId id, uint64_t attempt, const GroupLoad& load,
                        absl::Time now, Actions& actions) {
  registry_.OnLoad(id, attempt, load, now);
  StartWaiting(actions);
}

void RouterCore::OnWatchEnded(GroupId id, uint64_t attempt,
                              const absl::Status& status, absl::Time now,
                              Actions& actions) {
  registry_.OnWatchEnded(id, attempt, status, now);
  Tick(now, actions);
}

void RouterCore::Tick(absl::Time now, Actions& actions) {
  const size_t first_action = actions.groups.size();
  registry_.Tick(now, actions.groups);
  HandleGone(first_action, now, actions);
  StartWaiting(actions);
  FailWaiting(now, actions);
}

RouterCore::Load RouterCore::load() const {
  Load load;
  for (const auto& [key, request] : requests_) {
    if (request.group.has_value()) {
      ++load.running_requests;
    } else {
      ++load.backlog.waiting_requests;
      load.backlog.waiting_tokens += request.spec.prompt_tokens;
    }
  }
  return load;
}

void RouterCore::FailWaiting(absl::Time now, Actions& actions) {
  for (auto it = requests_.begin(); it != requests_.end();) {
    const Request& request = it->second;
    std::optional<Refusal> refusal;
    if (!request.group.has_value()) refusal = CheckWaiting(request, now);
    if (!refusal.has_value()) {
      ++it;
      continue;
    }
    actions.failures.push_back({it->first, *std::move(refusal)});
    it = requests_.erase(it);
  }
}

std::optional<Refusal> RouterCore::CheckWaiting(const Request& request,
                                                absl::Time now) const {
  if (now >= request.spec.deadline) {
    return Refusal{RefusalCause::kDeadline,
                   absl::DeadlineExceededError(
                       "the deadline passed before a group was ready"),
                   std::nullopt};
  }
  if (auto refusal = RefuseTooLong(groups(), ContextTokens(request.spec)))
    return refusal;
  const absl::Duration waited = now - request.waits_since;
  if (waited < options_.admission.max_wait_for_group) return std::nullopt;
  return NoGroupRefusal(groups(), waited);
}

void RouterCore::StartWaiting(Actions& actions) {
  if (!registry_.AnyReady()) return;
  std::vector<Request*> waiting;
  for (auto& [key, request] : requests_) {
    if (!request.group.has_value()) waiting.push_back(&request);
  }
  std::stable_sort(waiting.begin(), waiting.end(),
                   [](const Request* a, const Request* b) {
                     return a->spec.priority > b->spec.priority;
                   });
  for (Request* request : waiting) {
    const NewRequest& spec = request->spec;
    const std::optional<Placement> placement = Place(
        groups(), spec.prompt_tokens, ContextTokens(spec), request->refused_by);
    if (!placement.has_value()) continue;
    const Group& group = groups()[placement->group];
    request->group = group.id;
    request->unprefilled_tokens = spec.prompt_tokens;
    ++request->tries;
    registry_.AddRequest(group.id, spec.prompt_tokens);
    const int room = group.description->max_context_tokens - spec.prompt_tokens;
    actions.starts.push_back(
        {spec.key, group.id, spec.max_tokens > 0 ? spec.max_tokens : room});
  }
}

void RouterCore::LoseGroup(GroupId id, absl::Time now, Actions& actions) {
  std::vector<RequestKey> lost;
  for (const auto& [key, request] : requests_) {
    if (request.group == id) lost.push_back(key);
  }
  for (const RequestKey key : lost)
    LoseRun(requests_[key], groups()[id].reason, now, actions);
}

void RouterCore::LoseRun(Request& request, absl::string_view reason,
                         absl::Time now, Actions& actions) {
  const std::string& address = groups()[*request.group].address;
  LeaveGroup(request);
  if (!request.has_first_token && request.tries < options_.max_tries) {
    request.waits_since = now;
    request.refused_by.clear();
    return;
  }
  const RequestKey key = request.spec.key;
  actions.failures.push_back(
      {key,
       {RefusalCause::kLostGroup,
        absl::UnavailableError(absl::StrCat(
            "group ", address, " was lost while it served this request",
            reason.empty() ? "" : ": ", reason)),
        kLostGroupRetry}});
  requests_.erase(key);
}

// Loses the groups that actions from `first_action` on say are gone.
void RouterCore::HandleGone(size_t first_action, absl::Time now,
                            Actions& actions) {
  for (size_t i = first_action; i < actions.groups.size(); ++i) {
    if (actions.groups[i].kind == Registry::Action::Kind::kGone)
      LoseGroup(actions.groups[i].group, now, actions);
  }
}

void RouterCore::LeaveGroup(Request& request) {
  if (!request.group.has_value()) return;
  registry_.RemoveRequest(*request.group, request.unprefilled_tokens);
  request.unprefilled_tokens = 0;
  request.group.reset();
}

}  // namespace lapidary
