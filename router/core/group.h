// What the router knows about one group.

#ifndef ROUTER_CORE_GROUP_H_
#define ROUTER_CORE_GROUP_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/group_status.h"

namespace lapidary {

// Index of a group in the list that the router was started with.
using GroupId = int;

enum class GroupState {
  kConnecting,  // Not heard of yet, or lost.
  kReady,       // Takes requests.
  kSuspect,     // Was ready, and its news stopped.  Takes no new requests.
  kDraining,    // Finishes what it has.
  kRefused,     // Serves another model or speaks another protocol.
};

// "connecting", "ready", …
absl::string_view GroupStateName(GroupState state);

// What a group says about itself once (worker.proto, Describe).
struct GroupDescription {
  int protocol_version = 0;
  uint64_t epoch = 0;  // New at every start of the group.
  std::string model_name;
  std::string config_digest;
  std::string tokenizer_digest;
  int vocab_size = 0;
  int max_context_tokens = 0;
  int ranks = 0;
  std::string compute;
  std::string device;
};

// What a group says about itself all the time (worker.proto, Watch).
struct GroupLoad {
  uint64_t epoch = 0;
  bool draining = false;
  int running_requests = 0;
  int waiting_requests = 0;
  int64_t queued_tokens = 0;  // Prompt tokens still to prefill.
  PageUse global_pages;
  PageUse window_pages;
  double prefill_tokens_per_second = 0;  // 0: not measured yet.
  double decode_tokens_per_second = 0;
  std::vector<RankStatus> ranks;
  PromptSplit last_split;
  // Set if these are its last news: why it failed, and the cause in a word.
  std::string failure;
  std::string failure_cause;
};

struct Group {
  // Prompt tokens still to prefill: what the group last reported and what it
  // was sent since; at least what this router knows that it sent.
  int64_t queued_tokens() const {
    return std::max(load.queued_tokens + unreported_tokens, own_tokens);
  }

  GroupId id = 0;
  std::string address;
  GroupState state = GroupState::kConnecting;
  std::string reason;  // Why it is not ready.
  // Why the group that was last there failed, and how many did for each cause:
  // at most Registry::kMaxCauses.
  std::string last_failure;
  std::map<std::string, int64_t> failures;
  std::optional<GroupDescription> description;
  GroupLoad load;
  int64_t own_tokens = 0;         // Sent by this router and not prefilled.
  int64_t unreported_tokens = 0;  // Sent since the last load report.
  int own_requests = 0;           // Sent by this router and not finished.
};

}  // namespace lapidary

#endif  // ROUTER_CORE_GROUP_H_
