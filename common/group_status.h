// How a group stands, rank by rank.  proto/lapidary/v1/group.proto says what
// the fields mean.

#ifndef COMMON_GROUP_STATUS_H_
#define COMMON_GROUP_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lapidary {

struct PageUse {
  int64_t total = 0;
  int64_t used = 0;
  int64_t bytes_per_page = 0;

  bool operator==(const PageUse&) const = default;
};

struct RankStatus {
  int rank = 0;
  std::string host;
  std::string device;
  PageUse global_pages;
  PageUse window_pages;
  int64_t replica_bytes = 0;
  int64_t used_replica_bytes = 0;
  int64_t gather_bytes = 0;

  bool operator==(const RankStatus&) const = default;
};

// Of the last long prompt, or of the one that is being prefilled.
struct PromptSplit {
  int prompt_tokens = 0;  // 0: there was none.
  int computed_tokens = 0;
  int token_split_rounds = 0;
  int head_split_steps = 0;
  int token_split_tokens = 0;
  std::vector<int> range_tokens;        // By rank.
  std::vector<int64_t> received_bytes;  // By rank.
  double seconds = 0;
  double transfer_seconds = 0;
  double measured_balance = 0;  // 0: no round yet.
  int rounds_over_limit = 0;

  bool operator==(const PromptSplit&) const = default;
};

}  // namespace lapidary

#endif  // COMMON_GROUP_STATUS_H_
