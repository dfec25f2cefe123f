#include "client/error_text.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/grpc_status.h"

namespace lapidary {

std::string ErrorText(const absl::Status& status) {
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  status.message());
  for (const FieldViolation& violation : GetFieldViolations(status)) {
    // The message names the first one itself.
    if (absl::StrContains(text, violation.description)) continue;
    absl::StrAppend(&text, "; ", violation.field, ": ", violation.description);
  }
  if (const auto delay = GetRetryDelay(status)) {
    absl::StrAppendFormat(&text, "; try again in %.3g s",
                          absl::ToDoubleSeconds(*delay));
  }
  if (const auto id = GetRequestId(status)) {
    absl::StrAppend(&text, " (request ", *id, ")");
  }
  return absl::StrReplaceAll(text, {{"\n", " "}, {"\r", " "}});
}

absl::Status ExplainCall(const absl::Status& status, absl::string_view router,
                         absl::Duration deadline) {
  if (GetRequestId(status)) return status;
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return absl::CancelledError("interrupted");
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError(absl::StrCat(
          "no end within the --deadline of ", absl::FormatDuration(deadline)));
    case absl::StatusCode::kUnavailable:
      return absl::UnavailableError(
          absl::StrCat("router ", router, ": ", status.message(),
                       "; --router or LAPIDARY_ROUTER names another"));
    default:
      return status;
  }
}

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kNotFound:
      return 2;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return 3;
    case absl::StatusCode::kDeadlineExceeded:
      return 4;
    case absl::StatusCode::kCancelled:
      return 130;
    default:
      return 1;
  }
}

}  // namespace lapidary
