#include "worker/engine/split_log.h"

#include <algorithm>
#include <vector>

#include "glog/logging.h"

namespace lapidary {
namespace {

struct ComputeTimes {
  double slowest = 0;
  double mean = 0;
};

ComputeTimes TimesOf(std::span<const StepReport> reports) {
  ComputeTimes times;
  for (const StepReport& report : reports) {
    const double seconds = absl::ToDoubleSeconds(report.compute);
    times.slowest = std::max(times.slowest, seconds);
    times.mean += seconds / static_cast<double>(reports.size());
  }
  return times;
}

std::vector<int> RangeTokens(const StepPlan& plan, int start) {
  std::vector<int> tokens;
  for (const int end : plan.range_ends) {
    tokens.push_back(end - start);
    start = end;
  }
  return tokens;
}

}  // namespace

double MeasuredBalance(std::span<const StepReport> reports) {
  const ComputeTimes times = TimesOf(reports);
  return times.mean > 0 ? times.slowest / times.mean : 1;
}

void SplitLog::AddStep(const StepPlan& plan, const SequenceStep& part,
                       int prompt_tokens, std::span<const StepReport> reports) {
  CHECK_EQ(static_cast<int>(reports.size()), num_ranks_);
  if (prompt_tokens < kLongPromptTokens) return;
  Open& open = open_[part.sequence];
  if (part.start == 0) open = Open();  // What was preempted begins anew.
  PromptSplit& split = open.split;
  split.prompt_tokens = prompt_tokens;
  split.computed_tokens = std::min(part.start + part.num_tokens, prompt_tokens);
  split.received_bytes.resize(num_ranks_);
  absl::Duration longest;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const StepReport& report = reports[rank];
    split.received_bytes[rank] += report.received_bytes;
    split.transfer_seconds +=
        absl::ToDoubleSeconds(report.transfer) / num_ranks_;
    longest = std::max(longest, report.compute + report.transfer);
  }
  split.seconds += absl::ToDoubleSeconds(longest);
  if (plan.layout == Layout::kTokenSplit) {
    AddRound(plan, part, reports, open);
  } else {
    ++split.head_split_steps;
  }
  last_ = split;
  last_sequence_ = part.sequence;
  if (split.computed_tokens == prompt_tokens) open_.erase(part.sequence);
}

void SplitLog::AddRound(const StepPlan& plan, const SequenceStep& part,
                        std::span<const StepReport> reports, Open& open) const {
  PromptSplit& split = open.split;
  ++split.token_split_rounds;
  split.token_split_tokens += part.num_tokens;
  int largest = 0;
  for (const int tokens : split.range_tokens) largest += tokens;
  if (part.num_tokens >= largest) {
    split.range_tokens = RangeTokens(plan, part.start);
  }
  const ComputeTimes times = TimesOf(reports);
  open.slowest_seconds += times.slowest;
  open.mean_seconds += times.mean;
  split.measured_balance =
      open.mean_seconds > 0 ? open.slowest_seconds / open.mean_seconds : 1;
}

void SplitLog::AddOverLimit() {
  ++last_.rounds_over_limit;
  const auto it = open_.find(last_sequence_);
  if (it != open_.end()) ++it->second.split.rounds_over_limit;
}

}  // namespace lapidary
