#include "client/progress_bar.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lapidary {
namespace {

constexpr int kBarColumns = 20;

// A rate over less time says how messages arrive, not how fast the prefill is.
constexpr absl::Duration kRateTime = absl::Seconds(1);

// "[====>     ]": the arrow stands at `fraction` of the way.
std::string Bar(double fraction) {
  const int filled = static_cast<int>(fraction * kBarColumns);
  std::string bar(kBarColumns, ' ');
  std::fill_n(bar.begin(), filled, '=');
  if (filled < kBarColumns) bar[filled] = '>';
  return absl::StrCat("[", bar, "]");
}

}  // namespace

std::string ProgressBar::Line(const v1::Progress& progress, absl::Time now) {
  if (progress.queued()) {
    const double waited = std::max(0.0, absl::ToDoubleSeconds(now - start_));
    // Nobody has counted them yet.
    if (progress.prompt_tokens() == 0) {
      return absl::StrFormat("queued  %.0f s", waited);
    }
    return absl::StrFormat("queued  %s, %.0f s",
                           Counted(progress.prompt_tokens(), "token"), waited);
  }
  const uint32_t done = progress.prefilled_tokens();
  const uint32_t total = std::max(progress.prompt_tokens(), 1u);
  if (prefill_start_ == absl::InfinitePast()) {
    prefill_start_ = now;
    tokens_at_start_ = done;
  }
  const double fraction = std::min(1.0, static_cast<double>(done) / total);
  std::string line =
      absl::StrFormat("prefill %s %3d%%  %s of %s tokens", Bar(fraction),
                      static_cast<int>(fraction * 100), WithThousands(done),
                      WithThousands(progress.prompt_tokens()));
  if (done <= tokens_at_start_ || now - prefill_start_ < kRateTime) return line;
  const double rate =
      (done - tokens_at_start_) / absl::ToDoubleSeconds(now - prefill_start_);
  absl::StrAppend(&line, ", ", WithThousands(std::llround(rate)), "/s");
  if (done < total) {
    absl::StrAppendFormat(&line, ", %.0f s", std::ceil((total - done) / rate));
  }
  return line;
}

std::string WithThousands(uint64_t value) {
  std::string text = absl::StrCat(value);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(at, 1, ',');
  }
  return text;
}

std::string Counted(uint64_t count, absl::string_view noun) {
  return absl::StrCat(WithThousands(count), " ", noun, count == 1 ? "" : "s");
}

}  // namespace lapidary
