// What the ranks of a group agree on before they serve.
//
//   rank 0   report ─┐
//   rank 1   report ─┼─► leader: PlanGroup ─► plan ─► every rank
//   rank …   report ─┘
//
// The smallest memory and the slowest rates decide.  Pure.

#ifndef WORKER_GROUP_PLAN_H_
#define WORKER_GROUP_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/cache/memory_plan.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {

// What a rank says of itself.
struct RankReport {
  std::string host;
  std::string device;
  int64_t kv_bytes = 0;       // For keys and values.
  int64_t replica_bytes = 0;  // Beside them.
  RankRates rates;            // Zeros in a group of one.
};

struct GroupPlanOptions {
  // kv_memory_bytes and num_ranks are set from the reports.
  MemoryPlanOptions memory;
};

struct GroupPlan {
  MemoryPlan memory;
  int replica_pages = 0;
  RankRates slowest;  // The lowest of each rate.
};

// JSON.
std::string EncodeRankReport(const RankReport& report);
// Errors: INVALID_ARGUMENT, naming the field.
absl::StatusOr<RankReport> DecodeRankReport(absl::string_view json);

// What a rank needs of the plan to allocate.
struct RankPages {
  int global = 0;
  int window = 0;
  int replica = 0;

  bool operator==(const RankPages&) const = default;
};

std::string EncodeRankPages(const RankPages& pages);
absl::StatusOr<RankPages> DecodeRankPages(absl::string_view json);

// Errors: those of PlanMemory(), with the rank whose memory is smallest.
//
// REQUIRES: there is a report.
absl::StatusOr<GroupPlan> PlanGroup(const std::vector<RankReport>& reports,
                                    const GroupPlanOptions& options);

}  // namespace lapidary

#endif  // WORKER_GROUP_PLAN_H_
