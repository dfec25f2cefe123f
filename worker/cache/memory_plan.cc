#include "worker/cache/memory_plan.h"

#include <algorithm>
#include <climits>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/byte_size.h"
#include "common/tokens.h"
#include "worker/cache/kv_cache.h"

namespace lapidary {
namespace {

absl::Status Check(const MemoryPlanOptions& options) {
  if (options.kv_memory_bytes > 0 && options.global_page_bytes > 0 &&
      options.window_page_bytes >= 0 && options.num_ranks > 0 &&
      options.window > 0 && options.max_sequences > 0 &&
      options.max_step_tokens > 0 && options.max_context_tokens > 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "sizes of key/value memory must be positive: memory %d, global page %d, "
      "window page %d bytes; %d ranks, window %d, %d sequences, %d tokens a "
      "step, context %d",
      options.kv_memory_bytes, options.global_page_bytes,
      options.window_page_bytes, options.num_ranks, options.window,
      options.max_sequences, options.max_step_tokens,
      options.max_context_tokens));
}

// The sizes of the options in pages.
class Pages {
 public:
  explicit Pages(const MemoryPlanOptions& options)
      : options_(options),
        window_(WindowPages(options.max_context_tokens, options.window)) {}

  // Of a window, when it advances a page or less a step.
  int64_t OneWindow() const { return window_; }

  // Of the windows of `sequences`, when a step has prefill chunks: each chunk
  // adds its own pages to those that it reads, but not more than a window.
  int64_t Windows(int64_t sequences) const {
    const int64_t most = std::min(2 * window_, NumPages(Context()));
    return std::min(sequences * window_ + NumPages(options_.max_step_tokens),
                    sequences * most);
  }

  // Global pages on each rank of a sequence of `num_tokens`.
  int64_t Global(int num_tokens) const {
    return (NumPages(num_tokens) + options_.num_ranks - 1) / options_.num_ranks;
  }

  int Context() const { return options_.max_context_tokens; }

 private:
  const MemoryPlanOptions& options_;
  const int window_;
};

// The most sequences, from one up, whose windows take `bytes` at most.
int64_t NumWindows(const MemoryPlanOptions& options, const Pages& pages,
                   int64_t bytes) {
  int64_t sequences = 1;
  while (sequences < options.max_sequences &&
         pages.Windows(sequences + 1) * options.window_page_bytes <= bytes) {
    ++sequences;
  }
  return sequences;
}

absl::Status TooSmall(const MemoryPlanOptions& options, int tokens,
                      int64_t window_pages, int64_t global_pages) {
  const int64_t needed = window_pages * options.window_page_bytes +
                         global_pages * options.global_page_bytes;
  return absl::ResourceExhaustedError(absl::StrFormat(
      "a sequence of %d tokens needs %s of key/value memory (%d window pages "
      "of %s, %d global pages of %s), there is %s",
      tokens, FormatByteSize(needed), window_pages,
      FormatByteSize(options.window_page_bytes), global_pages,
      FormatByteSize(options.global_page_bytes),
      FormatByteSize(options.kv_memory_bytes)));
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryPlanOptions& options) {
  const absl::Status status = Check(options);
  if (!status.ok()) return status;
  const Pages pages(options);
  const int64_t memory = options.kv_memory_bytes;
  const int64_t window_bytes = options.window_page_bytes;
  const int64_t global_bytes = options.global_page_bytes;

  // One sequence.  Where memory is very short its chunks will be too.
  const int least_tokens = std::min(options.window, pages.Context());
  const int64_t least_global = pages.Global(least_tokens);
  int64_t window = pages.Windows(1);
  if (window * window_bytes + least_global * global_bytes > memory) {
    window = pages.OneWindow();
  }
  if (window * window_bytes + least_global * global_bytes > memory) {
    return TooSmall(options, least_tokens, window, least_global);
  }
  int64_t global = std::min(pages.Global(pages.Context()),
                            (memory - window * window_bytes) / global_bytes);

  // More of both from what is left.
  const int64_t left = memory - window * window_bytes - global * global_bytes;
  const int64_t most_global =
      std::min<int64_t>(options.max_sequences * pages.Global(pages.Context()),
                        INT_MAX / options.num_ranks);
  int64_t sequences =
      NumWindows(options, pages, window * window_bytes + left / 2);
  if (sequences > 1) window = pages.Windows(sequences);
  global =
      std::min(most_global, (memory - window * window_bytes) / global_bytes);
  sequences = NumWindows(options, pages, memory - global * global_bytes);
  if (sequences > 1) window = pages.Windows(sequences);

  MemoryPlan plan;
  plan.global_pages_per_rank = static_cast<int>(global);
  plan.window_pages = static_cast<int>(std::min<int64_t>(window, INT_MAX));
  plan.bytes = global * global_bytes + window * window_bytes;
  plan.num_windows = static_cast<int>(sequences);
  plan.context_tokens = global * options.num_ranks * kPageTokens;
  plan.max_sequence_tokens = static_cast<int>(
      std::min<int64_t>(options.max_context_tokens, plan.context_tokens));
  return plan;
}

std::string MemoryPlan::Summary() const {
  return absl::StrFormat(
      "%s of key/value memory a rank: %d global pages (%d tokens of context in "
      "all, %d in one sequence), %d window pages (whole windows: %d)",
      FormatByteSize(bytes), global_pages_per_rank, context_tokens,
      max_sequence_tokens, window_pages, num_windows);
}

}  // namespace lapidary
