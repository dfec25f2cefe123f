#include "router/core/admission.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "router/core/placement.h"

namespace lapidary {
namespace {

constexpr absl::Duration kMinRetry = absl::Seconds(1);
constexpr absl::Duration kMaxRetry = absl::Minutes(10);
// A group that is restarted is back after a time like this.
constexpr absl::Duration kNoGroupRetry = absl::Seconds(5);

absl::Duration RetryAfter(double seconds) {
  return std::clamp(absl::Ceil(absl::Seconds(seconds), absl::Seconds(1)),
                    kMinRetry, kMaxRetry);
}

// Prompt tokens a second of all ready groups together.
double TotalPrefillRate(std::span<const Group> groups) {
  double total = 0;
  for (const Group& group : groups) {
    if (group.state != GroupState::kReady) continue;
    total += group.load.prefill_tokens_per_second > 0
                 ? group.load.prefill_tokens_per_second
                 : kAssumedPrefillTokensPerSecond;
  }
  return std::max(total, kAssumedPrefillTokensPerSecond);
}

int64_t QueuedTokens(std::span<const Group> groups) {
  int64_t total = 0;
  for (const Group& group : groups) {
    if (group.state == GroupState::kReady) total += group.queued_tokens();
  }
  return total;
}

std::optional<Refusal> RefuseFullQueue(const AdmissionOptions& options,
                                       const Backlog& backlog,
                                       std::span<const Group> groups,
                                       int64_t prompt_tokens) {
  const int64_t queued = backlog.waiting_tokens + QueuedTokens(groups);
  const int64_t excess = queued + prompt_tokens - options.max_queued_tokens;
  if (excess > 0 && queued > 0) {
    const double seconds = static_cast<double>(std::min(excess, queued)) /
                           TotalPrefillRate(groups);
    return Refusal{
        RefusalCause::kQueueFull,
        absl::ResourceExhaustedError(absl::StrCat(
            "no room for ", prompt_tokens, " prompt tokens: ", queued, " of ",
            options.max_queued_tokens, " are queued")),
        RetryAfter(seconds)};
  }
  if (backlog.waiting_requests >= options.max_waiting_requests) {
    return Refusal{
        RefusalCause::kQueueFull,
        absl::ResourceExhaustedError(absl::StrCat(
            "no room for another request: ", backlog.waiting_requests, " of ",
            options.max_waiting_requests, " wait")),
        RetryAfter(0)};
  }
  return std::nullopt;
}

std::optional<Refusal> RefuseLateStart(std::span<const Group> groups,
                                       int64_t prompt_tokens,
                                       int64_t context_tokens,
                                       absl::Time deadline, absl::Time now) {
  if (deadline <= now) {
    return Refusal{RefusalCause::kDeadline,
                   absl::DeadlineExceededError("the deadline has passed"),
                   std::nullopt};
  }
  const std::optional<Placement> placement =
      Place(groups, prompt_tokens, context_tokens);
  if (!placement.has_value()) return std::nullopt;
  // A group that has not measured itself gets the benefit of the doubt.
  if (groups[placement->group].load.prefill_tokens_per_second <= 0)
    return std::nullopt;
  const double left = absl::ToDoubleSeconds(deadline - now);
  if (placement->queue_seconds <= left) return std::nullopt;
  return Refusal{RefusalCause::kDeadline,
                 absl::DeadlineExceededError(absl::StrFormat(
                     "cannot start before the deadline: %.1f s of work are "
                     "queued, %.1f s are left",
                     placement->queue_seconds, left)),
                 RetryAfter(placement->queue_seconds - left)};
}

}  // namespace

absl::string_view RefusalCauseName(RefusalCause cause) {
  switch (cause) {
    case RefusalCause::kQueueFull:
      return "queue_full";
    case RefusalCause::kDeadline:
      return "deadline";
    case RefusalCause::kNoGroup:
      return "no_group";
    case RefusalCause::kTooLong:
      return "too_long";
    case RefusalCause::kLostGroup:
      return "lost_group";
    case RefusalCause::kDraining:
      return "draining";
  }
  return "unknown";
}

std::optional<Refusal> Admit(const AdmissionOptions& options,
                             const Backlog& backlog,
                             std::span<const Group> groups,
                             int64_t prompt_tokens, int64_t context_tokens,
                             absl::Time deadline, absl::Time now) {
  if (auto refusal = RefuseTooLong(groups, context_tokens)) return refusal;
  if (auto refusal = RefuseFullQueue(options, backlog, groups, prompt_tokens)) {
    return refusal;
  }
  return RefuseLateStart(groups, prompt_tokens, context_tokens, deadline, now);
}

std::optional<Refusal> RefuseTooLong(std::span<const Group> groups,
                                     int64_t context_tokens) {
  int longest = 0;
  for (const Group& group : groups) {
    if (group.state == GroupState::kRefused) continue;
    if (!group.description.has_value()) return std::nullopt;
    longest = std::max(longest, group.description->max_context_tokens);
  }
  if (longest == 0 || context_tokens <= longest) return std::nullopt;
  return Refusal{RefusalCause::kTooLong,
                 absl::FailedPreconditionError(absl::StrCat(
                     "prompt and output need ", context_tokens,
                     " tokens, the largest group holds ", longest)),
                 std::nullopt};
}

Refusal NoGroupRefusal(std::span<const Group> groups, absl::Duration waited) {
  std::string message =
      absl::StrFormat("no group was ready within %.1f s: needs 1 of %d",
                      absl::ToDoubleSeconds(waited), groups.size());
  for (const Group& group : groups) {
    if (message.size() > 1000) break;
    absl::StrAppend(&message, "; ", group.address, " is ",
                    GroupStateName(group.state));
    if (!group.reason.empty())
      absl::StrAppend(&message, " (", group.reason, ")");
  }
  return {RefusalCause::kNoGroup, absl::UnavailableError(message),
          kNoGroupRetry};
}

}  // namespace lapidary
