#include "client/status_text.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/progress_bar.h"
#include "common/byte_size.h"

namespace lapidary {
namespace {

std::string PagesText(const v1::PageFamilyStatus& pages) {
  const double share =
      pages.total() == 0 ? 0 : 100.0 * pages.used() / pages.total();
  return absl::StrFormat("%s of %s pages used (%.0f%%), %s each",
                         WithThousands(pages.used()),
                         WithThousands(pages.total()), share,
                         FormatByteSize(pages.bytes_per_page()));
}

void AppendGroup(const v1::GroupStatus& group, std::string& text) {
  absl::StrAppend(&text, "group ", group.address(), "  ", group.state());
  if (!group.reason().empty()) absl::StrAppend(&text, ": ", group.reason());
  absl::StrAppend(&text, "\n");
  if (group.ranks() == 0) return;  // It has not described itself yet.
  absl::StrAppend(&text, "  model      ", group.model_name(), "  ",
                  group.compute(), "  ", group.ranks(),
                  group.ranks() == 1 ? " rank  " : " ranks  ", group.device(),
                  "\n");
  absl::StrAppend(&text, "  requests   ", group.running_requests(),
                  " running, ", group.waiting_requests(), " waiting, ",
                  WithThousands(group.queued_tokens()), " tokens to prefill\n");
  absl::StrAppend(&text, "  global     ", PagesText(group.global_pages()),
                  "\n  window     ", PagesText(group.window_pages()), "\n");
  absl::StrAppendFormat(
      &text, "  speed      %s tokens/s prefill, %.1f tokens/s decode\n",
      WithThousands(std::llround(group.prefill_tokens_per_second())),
      group.decode_tokens_per_second());
}

}  // namespace

std::string StatusText(absl::string_view router_address,
                       const v1::GetStatusResponse& status) {
  const absl::Duration uptime =
      absl::Trunc(absl::Seconds(status.uptime_seconds()), absl::Seconds(1));
  std::string text = absl::StrCat(
      "router ", router_address, "  version ", status.version(), "  up ",
      absl::FormatDuration(uptime), "\n  requests   ",
      status.running_requests(), " running, ", status.waiting_requests(),
      " waiting (", WithThousands(status.waiting_tokens()), " tokens)\n");
  for (const v1::GroupStatus& group : status.groups()) {
    AppendGroup(group, text);
  }
  if (status.groups().empty()) absl::StrAppend(&text, "no groups\n");
  return text;
}

}  // namespace lapidary
