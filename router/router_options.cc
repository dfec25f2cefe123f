#include "router/router_options.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/address.h"

namespace lapidary {
namespace {

template <typename Value>
absl::Status OutOfRange(absl::string_view flag, absl::string_view needs,
                        const Value& value) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " needs ", needs, ", got ", value));
}

absl::Status CheckPositive(absl::string_view flag, absl::Duration value) {
  if (value > absl::ZeroDuration()) return absl::OkStatus();
  return OutOfRange(flag, "a duration above 0", absl::FormatDuration(value));
}

absl::Status CheckRange(absl::string_view flag, int64_t value, int64_t min,
                        int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return OutOfRange(flag, absl::StrCat("a number from ", min, " to ", max),
                    value);
}

}  // namespace

absl::Status RouterOptions::Validate() const {
  if (model.empty())
    return absl::InvalidArgumentError("--model needs a directory, got none");
  if (groups.empty()) {
    return absl::InvalidArgumentError(
        "--groups needs HOST:PORT of at least one group, got none");
  }
  const absl::Status checks[] = {
      CheckListenAddress("--listen", listen),
      CheckListenAddress("--metrics-listen", metrics_listen),
      CheckRange("tokenize-threads", tokenize_threads, 2, 256),
      CheckRange("max-queued-tokens", max_queued_tokens, 1, int64_t{1} << 40),
      CheckRange("max-waiting-requests", max_waiting_requests, 1, 1 << 20),
      CheckRange("max-message-bytes", max_message_bytes, 1 << 10,
                 (int64_t{1} << 31) - 1),
      CheckPositive("max-wait-for-group", max_wait_for_group),
      CheckPositive("keepalive-timeout", keepalive_timeout),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  if (keepalive_interval < absl::Seconds(5)) {
    return OutOfRange("keepalive-interval", "a duration of at least 5s",
                      absl::FormatDuration(keepalive_interval));
  }
  if (drain_timeout < absl::ZeroDuration()) {
    return OutOfRange("drain-timeout", "a duration of at least 0",
                      absl::FormatDuration(drain_timeout));
  }
  return absl::OkStatus();
}

}  // namespace lapidary
