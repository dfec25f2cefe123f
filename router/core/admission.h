// Whether a request may come in: the queue is bounded in tokens, and what
// cannot start before its deadline is refused at once.

#ifndef ROUTER_CORE_ADMISSION_H_
#define ROUTER_CORE_ADMISSION_H_

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "router/core/group.h"

namespace lapidary {

// Why a request is not served; each is counted by itself.
enum class RefusalCause {
  kQueueFull,  // RESOURCE_EXHAUSTED: here, or in each group.
  kDeadline,   // DEADLINE_EXCEEDED: passed, or cannot be met.
  kNoGroup,    // UNAVAILABLE: no group was ready in time.
  kTooLong,    // FAILED_PRECONDITION: no group has the memory for it.
  kLostGroup,  // UNAVAILABLE: the group died on it.
  kDraining,   // UNAVAILABLE: this router goes.
};
inline constexpr int kNumRefusalCauses = 6;

// "queue_full", "deadline", …: the label of the metric.
absl::string_view RefusalCauseName(RefusalCause cause);

struct Refusal {
  friend bool operator==(const Refusal&, const Refusal&) = default;

  RefusalCause cause;
  absl::Status status;
  // When to try again; empty where that would not help.
  std::optional<absl::Duration> retry_after;
};

struct AdmissionOptions {
  // Prompt tokens that wait here or are still to be prefilled in the groups.
  // A request that finds nothing queued is let in whatever its size.
  int64_t max_queued_tokens = 4 << 20;
  // Requests that wait here for a group.
  int max_waiting_requests = 1024;
  // How long they wait for one.
  absl::Duration max_wait_for_group = absl::Seconds(10);
};

// What a new request finds.
struct Backlog {
  int waiting_requests = 0;    // Without a group.
  int64_t waiting_tokens = 0;  // Theirs.
};

// Refuses a request of `prompt_tokens` that needs `context_tokens` of memory
// in all, or lets it in (nullopt).
std::optional<Refusal> Admit(const AdmissionOptions& options,
                             const Backlog& backlog,
                             std::span<const Group> groups,
                             int64_t prompt_tokens, int64_t context_tokens,
                             absl::Time deadline, absl::Time now);

// Refuses what no group can ever hold.  While there is a group that has not
// said yet what it holds, nothing is too long.
std::optional<Refusal> RefuseTooLong(std::span<const Group> groups,
                                     int64_t context_tokens);

// UNAVAILABLE: no group was ready within `waited`.  Says what is the matter
// with each.
Refusal NoGroupRefusal(std::span<const Group> groups, absl::Duration waited);

}  // namespace lapidary

#endif  // ROUTER_CORE_ADMISSION_H_
