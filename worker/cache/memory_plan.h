// How key/value memory is divided between the two families of pages.
//
//   kv_memory_bytes = global pages * global_page_bytes
//                   + window pages * window_page_bytes        (on each rank)
//
// Served in this order:
//   1. one sequence: the pages of a window, and global pages for as much of the
//      model's context as there is memory for
//   2. of the rest, half for the windows of more sequences, up to
//      max_sequences, and half for more context, up to max_sequences times the
//      model's; what one cannot use the other gets

#ifndef WORKER_CACHE_MEMORY_PLAN_H_
#define WORKER_CACHE_MEMORY_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

struct MemoryPlanOptions {
  int64_t kv_memory_bytes = 0;    // On each rank.
  int64_t global_page_bytes = 0;  // Over all global layers, on one rank.
  int64_t window_page_bytes = 0;  // Over all window layers, on one rank.
  int num_ranks = 1;
  int window = 0;              // W.
  int max_sequences = 0;       // Running at once.
  int max_step_tokens = 0;     // As the scheduler's.
  int max_context_tokens = 0;  // Of the model.
};

struct MemoryPlan {
  int global_pages_per_rank = 0;
  int window_pages = 0;
  int64_t bytes = 0;  // On each rank.

  // Sequences whose whole windows fit at once.
  int num_windows = 0;
  // Tokens of context of all sequences together.
  int64_t context_tokens = 0;
  // The longest prompt + output of one sequence: the model's limit or less.
  int max_sequence_tokens = 0;

  // For people, one line.
  std::string Summary() const;
};

// Errors:
//   INVALID_ARGUMENT    an option is not positive.
//   RESOURCE_EXHAUSTED  no sequence of W tokens (or of the model's context, if
//                       that is less) fits.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryPlanOptions& options);

}  // namespace lapidary

#endif  // WORKER_CACHE_MEMORY_PLAN_H_
