#include "worker/worker_options.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/address.h"
#include "common/byte_size.h"
#include "common/status_macros.h"
#include "common/tokens.h"

namespace lapidary {
namespace {

absl::Status ExpectSet(absl::string_view flag, absl::string_view value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("needs ", flag));
}

absl::Status ExpectInRange(absl::string_view flag, int64_t value, int64_t least,
                           int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected ", least, " to ", most, ", got ", value));
}

absl::Status ExpectMemory(absl::string_view flag, int64_t bytes,
                          int64_t least) {
  if (bytes >= least && bytes <= kMaxMemoryBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      flag, ": expected ", FormatByteSize(least), " to ",
      FormatByteSize(kMaxMemoryBytes), ", got ", FormatByteSize(bytes)));
}

absl::Status ExpectAtLeast(absl::string_view flag, absl::Duration value,
                           absl::Duration least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected ", absl::FormatDuration(least),
                   " or more, got ", absl::FormatDuration(value)));
}

}  // namespace

absl::Status WorkerOptions::Validate() const {
  constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
  constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
  RETURN_IF_ERROR(ExpectSet("--model DIR", model));
  RETURN_IF_ERROR(ExpectSet("--image-dir DIR", image_dir));
  RETURN_IF_ERROR(CheckListenAddress("--listen", listen));
  RETURN_IF_ERROR(CheckListenAddress("--metrics-listen", metrics_listen));
  RETURN_IF_ERROR(ExpectInRange("--threads", threads, 0, 4096));
  RETURN_IF_ERROR(ExpectMemory("--kv-memory", kv_memory, 0));
  RETURN_IF_ERROR(ExpectInRange("--max-sequences", max_sequences, 1, 4096));
  RETURN_IF_ERROR(ExpectInRange("--step-tokens", step_tokens, 1, 65536));
  RETURN_IF_ERROR(ExpectInRange("--max-waiting", max_waiting, 1, kMaxInt));
  RETURN_IF_ERROR(
      ExpectInRange("--max-waiting-tokens", max_waiting_tokens, 1, kMaxInt64));
  RETURN_IF_ERROR(
      ExpectInRange("--max-message-bytes", max_message_bytes, 1024, kMaxInt));
  RETURN_IF_ERROR(
      ExpectAtLeast("--drain-timeout", drain_timeout, absl::ZeroDuration()));
  return ValidateGroup();
}

absl::Status WorkerOptions::ValidateGroup() const {
  RETURN_IF_ERROR(ExpectInRange("--ranks", ranks, 1, kMaxGroupRanks));
  RETURN_IF_ERROR(ExpectInRange("--rank", rank, 0, ranks - 1));
  if (ranks > 1) {
    RETURN_IF_ERROR(ExpectSet("--rendezvous HOST:PORT of rank 0", rendezvous));
    RETURN_IF_ERROR(CheckAddress("--rendezvous", rendezvous));
  }
  RETURN_IF_ERROR(
      ExpectAtLeast("--group-timeout", group_timeout, absl::Seconds(1)));
  RETURN_IF_ERROR(
      ExpectAtLeast("--liveness-timeout", liveness_timeout, absl::Seconds(2)));
  RETURN_IF_ERROR(ExpectAtLeast("--inter-token-deadline", inter_token_deadline,
                                absl::Milliseconds(1)));
  RETURN_IF_ERROR(ExpectInRange("--round-tokens", round_tokens, 0, 65536));
  if (round_tokens % kPageTokens != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--round-tokens: expected a multiple of ", kPageTokens,
                     ", got ", round_tokens));
  }
  RETURN_IF_ERROR(
      ExpectMemory("--replica-memory", replica_memory.value_or(0), 0));
  return ExpectMemory("--gather-memory", gather_memory, 1 << 20);
}

}  // namespace lapidary
