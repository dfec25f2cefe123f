// One rank of a group, from its options to the point where it can run steps.
//
//   config.json ─► ranks meet ─► load ─► links ─► reports ─► plan ─► allocate
//                      every stage ends on all ranks, or fails on all
//
// A group of one takes the same way, without sockets.

#ifndef WORKER_RANK_H_
#define WORKER_RANK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/model_files.h"
#include "worker/engine/group.h"
#include "worker/group_links.h"
#include "worker/group_plan.h"
#include "worker/model/gemma_config.h"
#include "worker/model/loaded_model.h"
#include "worker/parallel/step_progress.h"
#include "worker/schedule/step_plan.h"
#include "worker/worker_options.h"

namespace lapidary {

// Owned by main()'s thread until an engine's thread takes its parts.
class Rank {
 public:
  // Logs what it finds and plans.  `clock` must outlive the rank.
  //
  // Errors: those of the options, of meeting, loading and memory; each says
  // what was needed and what was there, and in a group of several ranks which
  // rank it was.
  static absl::StatusOr<std::unique_ptr<Rank>> Start(
      const WorkerOptions& options, Clock& clock);

  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  bool leads() const { return options_.rank == 0; }
  GroupLinks& links() { return *links_; }
  StepProgress& progress() { return progress_; }
  // REQUIRES: links().Watch() has been called when a step begins.
  RankParts parts();
  PlanLimits limits() const;

  LoadedModel& model() { return *model_; }
  const ModelDigests& digests() const { return digests_; }
  const RankRates& rates() const { return rates_; }
  const RankPages& pages() const { return pages_; }
  // Of the buffer that global keys travel through.
  int gather_pages() const;
  // The leader's alone.
  const GroupPlan& plan() const { return plan_; }
  const std::vector<RankReport>& reports() const { return reports_; }

 private:
  Rank(const WorkerOptions& options, Clock& clock);

  absl::Status ReadConfig();
  absl::Status Meet();
  absl::Status Load();
  void LogModel() const;
  absl::Status Connect();
  absl::StatusOr<std::string> Report();
  int64_t ReplicaBytes(int64_t left) const;
  absl::Status Plan();
  absl::StatusOr<std::string> PlanAsLeader(
      const std::vector<std::string>& reports);
  absl::Status Allocate();

  const WorkerOptions options_;
  Clock& clock_;
  GemmaConfig config_;
  ModelDigests digests_;
  StepProgress progress_;
  std::unique_ptr<GroupLinks> links_;
  std::unique_ptr<LoadedModel> model_;
  RankRates rates_;
  RankPages pages_;
  GroupPlan plan_;
  std::vector<RankReport> reports_;
};

}  // namespace lapidary

#endif  // WORKER_RANK_H_
