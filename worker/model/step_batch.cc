#include "worker/model/step_batch.h"

#include <algorithm>

#include "glog/logging.h"

namespace lapidary {

StepBatch::StepBatch(int window, int rank, int num_ranks)
    : window_(window), rank_(rank), num_ranks_(num_ranks) {}

void StepBatch::Reset(const StepPlan& plan) {
  positions_.clear();
  for (FamilyBatch* family : {&global_, &window_family_}) {
    family->sequences.clear();
    family->first_positions.clear();
  }
  CopyOwnedPages(plan);

  for (const SequenceStep& step : plan.sequences) {
    const int end = step.start + step.num_tokens;
    CHECK_EQ(step.first_token, static_cast<int>(positions_.size()));
    CHECK_GE(step.num_global_pages, NumPages(end));
    for (int p = step.start; p < end; ++p) positions_.push_back(p);

    AttentionSequence sequence{.first_row = step.first_token,
                               .num_tokens = step.num_tokens,
                               .start = step.start};
    sequence.pages = owned_pages_.data() + step.first_global_page;
    sequence.first_page = 0;
    sequence.num_pages = step.num_global_pages;
    global_.sequences.push_back(sequence);
    global_.first_positions.push_back(step.start);

    sequence.pages = plan.window_pages.data() + step.first_window_page;
    sequence.first_page = step.window_base;
    sequence.num_pages = step.num_window_pages;
    window_family_.sequences.push_back(sequence);
    window_family_.first_positions.push_back(
        std::max(step.start, end - (window_ - 1)));
  }
  CHECK_EQ(positions_.size(), plan.tokens.size());
}

void StepBatch::CopyOwnedPages(const StepPlan& plan) {
  owned_pages_.assign(plan.global_pages.begin(), plan.global_pages.end());
  for (const SequenceStep& step : plan.sequences) {
    for (int p = 0; p < step.num_global_pages; ++p) {
      if (p % num_ranks_ == rank_) continue;
      owned_pages_[step.first_global_page + p] = kNoPage;
    }
  }
}

}  // namespace lapidary
