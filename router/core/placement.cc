#include "router/core/placement.h"

#include <algorithm>
#include <tuple>

namespace lapidary {
namespace {

double PrefillRate(const Group& group) {
  return group.load.prefill_tokens_per_second > 0
             ? group.load.prefill_tokens_per_second
             : kAssumedPrefillTokensPerSecond;
}

int NumRequests(const Group& group) {
  return std::max(group.load.running_requests + group.load.waiting_requests,
                  group.own_requests);
}

}  // namespace

Placement Predict(const Group& group, int64_t uncached_tokens) {
  const double rate = PrefillRate(group);
  return {.group = group.id,
          .queue_seconds = static_cast<double>(group.queued_tokens()) / rate,
          .prefill_seconds = static_cast<double>(uncached_tokens) / rate};
}

bool CanHold(const Group& group, int64_t context_tokens) {
  return group.description.has_value() &&
         group.description->max_context_tokens >= context_tokens;
}

std::optional<Placement> Place(std::span<const Group> groups,
                               int64_t prompt_tokens, int64_t context_tokens,
                               std::span<const GroupId> except) {
  std::optional<Placement> best;
  std::tuple<double, int, GroupId> best_cost;
  for (const Group& group : groups) {
    if (group.state != GroupState::kReady || !CanHold(group, context_tokens))
      continue;
    if (std::find(except.begin(), except.end(), group.id) != except.end())
      continue;
    const Placement placement = Predict(group, prompt_tokens);
    const std::tuple cost(placement.queue_seconds + placement.prefill_seconds,
                          NumRequests(group), group.id);
    if (best.has_value() && cost >= best_cost) continue;
    best = placement;
    best_cost = cost;
  }
  return best;
}

}  // namespace lapidary
