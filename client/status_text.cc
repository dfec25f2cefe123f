#include "client/status_text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
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

std::string BytesOf(uint64_t used, uint64_t total) {
  return absl::StrCat(FormatByteSize(static_cast<int64_t>(used)), " of ",
                      FormatByteSize(static_cast<int64_t>(total)));
}

// What a rank holds: pages of both families, and bytes.
void AppendRank(const v1::RankStatus& rank, std::string& text) {
  const v1::PageFamilyStatus& global = rank.global_pages();
  const v1::PageFamilyStatus& window = rank.window_pages();
  absl::StrAppendFormat(
      &text, "  rank %-5d %s  %s  %s global + %s window pages, %s", rank.rank(),
      rank.host(), rank.device(), WithThousands(global.used()),
      WithThousands(window.used()),
      BytesOf(global.used() * global.bytes_per_page() +
                  window.used() * window.bytes_per_page(),
              global.total() * global.bytes_per_page() +
                  window.total() * window.bytes_per_page()));
  if (rank.replica_bytes() > 0) {
    absl::StrAppend(&text, "; replica ",
                    BytesOf(rank.used_replica_bytes(), rank.replica_bytes()));
  }
  absl::StrAppend(&text, "\n");
}

void AppendSplit(const v1::PromptSplit& split, std::string& text) {
  absl::StrAppend(&text, "  last long  ",
                  Counted(split.prompt_tokens(), "token"));
  if (split.computed_tokens() < split.prompt_tokens()) {
    absl::StrAppend(&text, ", ", WithThousands(split.computed_tokens()),
                    " so far");
  }
  absl::StrAppend(
      &text, ": ", WithThousands(split.token_split_tokens()), " in ",
      Counted(split.token_split_rounds(), "round"), " split by tokens, ",
      Counted(split.head_split_steps(), "step"), " split by heads\n");
  int64_t most_bytes = 0;
  for (const uint64_t bytes : split.received_bytes()) {
    most_bytes = std::max(most_bytes, static_cast<int64_t>(bytes));
  }
  absl::StrAppendFormat(
      &text, "             %.1f s, %.1f s of it transfers, %s to a rank",
      split.seconds(), split.transfer_seconds(), FormatByteSize(most_bytes));
  if (split.token_split_rounds() > 0) {
    absl::StrAppendFormat(&text, ", slowest/mean %.2f; largest round %s tokens",
                          split.measured_balance(),
                          absl::StrJoin(split.range_tokens(), " + "));
  }
  if (split.rounds_over_limit() > 0) {
    absl::StrAppend(&text, "; ", Counted(split.rounds_over_limit(), "round"),
                    " over the inter-token deadline");
  }
  absl::StrAppend(&text, "\n");
}

// A group of one rank has nothing to tell of its ranks.
void AppendRanks(const v1::GroupStatus& group, std::string& text) {
  if (group.rank_status_size() <= 1) return;
  for (const v1::RankStatus& rank : group.rank_status()) AppendRank(rank, text);
  if (group.last_split().prompt_tokens() > 0) {
    AppendSplit(group.last_split(), text);
  }
}

// What the router knows of the load of such a group is of the past.
bool IsGone(const v1::GroupStatus& group) {
  return group.state() == "connecting" || group.state() == "suspect";
}

void AppendLoad(const v1::GroupStatus& group, std::string& text) {
  absl::StrAppend(&text, "  requests   ", group.running_requests(),
                  " running, ", group.waiting_requests(), " waiting, ",
                  Counted(group.queued_tokens(), "token"), " to prefill\n");
  absl::StrAppend(&text, "  global     ", PagesText(group.global_pages()),
                  "\n  window     ", PagesText(group.window_pages()), "\n");
  absl::StrAppendFormat(
      &text, "  speed      %s tokens/s prefill, %.1f tokens/s decode\n",
      WithThousands(std::llround(group.prefill_tokens_per_second())),
      group.decode_tokens_per_second());
  AppendRanks(group, text);
}

void AppendGroup(const v1::GroupStatus& group, std::string& text) {
  absl::StrAppend(&text, "group ", group.address(), "  ", group.state());
  if (!group.reason().empty()) absl::StrAppend(&text, ": ", group.reason());
  absl::StrAppend(&text, "\n");
  if (!group.last_failure().empty()) {
    // What is there again has got over it.
    absl::StrAppend(&text, IsGone(group) ? "  failed     " : "  last fail  ",
                    group.last_failure(), "\n");
  }
  if (group.ranks() == 0) return;  // It has not described itself yet.
  absl::StrAppend(&text, "  model      ", group.model_name(), "  ",
                  group.compute(), "  ", Counted(group.ranks(), "rank"), "  ",
                  group.device(), "\n");
  if (!IsGone(group)) AppendLoad(group, text);
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
      " waiting (", Counted(status.waiting_tokens(), "token"), ")\n");
  for (const v1::GroupStatus& group : status.groups()) {
    AppendGroup(group, text);
  }
  if (status.groups().empty()) absl::StrAppend(&text, "no groups\n");
  return text;
}

}  // namespace lapidary
