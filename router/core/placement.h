// Which group a request goes to: the one that starts to answer first.
//
//   seconds until the first token =
//       (tokens queued there + tokens of the prompt that it must compute)
//       / its prefill rate

#ifndef ROUTER_CORE_PLACEMENT_H_
#define ROUTER_CORE_PLACEMENT_H_

#include <cstdint>
#include <optional>
#include <span>

#include "router/core/group.h"

namespace lapidary {

// What a group is taken to prefill before it has measured itself.
inline constexpr double kAssumedPrefillTokensPerSecond = 1000;

struct Placement {
  friend bool operator==(const Placement&, const Placement&) = default;

  GroupId group = 0;
  double queue_seconds = 0;    // Until the group starts on the prompt.
  double prefill_seconds = 0;  // From there to the first token.
};

// What `group` would need for a prompt of which it has to compute
// `uncached_tokens`.
Placement Predict(const Group& group, int64_t uncached_tokens);

// Whether `group` can ever hold `context_tokens`, prompt and output together.
bool CanHold(const Group& group, int64_t context_tokens);

// The ready group with the least predicted seconds that can hold
// `context_tokens`; of equal ones the one with fewer requests, then the one
// that stands first in the list.  nullopt if there is none, those of `except`
// apart.
std::optional<Placement> Place(std::span<const Group> groups,
                               int64_t prompt_tokens, int64_t context_tokens,
                               std::span<const GroupId> except = {});

}  // namespace lapidary

#endif  // ROUTER_CORE_PLACEMENT_H_
