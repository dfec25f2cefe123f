// Whether the ranks of a group live, as far as one of them can tell.
//
//   heartbeats, closed connections, reports  ──►  GroupHealth  ──►  a failure
//
// The leader watches all ranks; another rank watches the leader, and believes
// what the leader announces.  Pure: no clock, no sockets.

#ifndef WORKER_PARALLEL_GROUP_HEALTH_H_
#define WORKER_PARALLEL_GROUP_HEALTH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/step_progress.h"

namespace lapidary {

// For metrics.
enum class FailureCause : uint8_t {
  kSilent,        // No heartbeat in time.
  kDisconnected,  // Its connection closed.
  kMalformed,     // It sent what is no frame.
  kOverdue,       // A step took too long.
  kReported,      // It said so itself.
};
inline constexpr int kNumFailureCauses = 5;

// "silent", "disconnected", …
absl::string_view NameOf(FailureCause cause);

// Why the group ends.
struct GroupFailure {
  FailureCause cause = FailureCause::kReported;
  std::string message;  // "rank 2 (host a): no heartbeat for 5.0 s (…)"

  bool operator==(const GroupFailure&) const = default;
};

// Where a rank is, as of its heartbeat.
struct RankProgress {
  int64_t step = StepProgress::kIdle;
  int layer = 0;

  bool operator==(const RankProgress&) const = default;
};

// How often a rank says that it lives.
inline constexpr absl::Duration kHeartbeatPeriod = absl::Seconds(1);

// "no heartbeat for 5.0 s"
std::string DescribeSilence(absl::Duration silence);

struct GroupHealthOptions {
  absl::Duration heartbeat_period = kHeartbeatPeriod;
  // A rank that is silent for so long is lost.
  absl::Duration liveness_timeout = absl::Seconds(5);
  // How long a better explanation of a rank's error may take: that another rank
  // is gone explains why an exchange with it failed.
  absl::Duration report_grace = absl::Seconds(1);
};

// Owned by one thread.  `now` never goes back.
class GroupHealth {
 public:
  // `hellos` of all ranks, all of which have just been heard.
  GroupHealth(int rank, const std::vector<Hello>& hellos,
              const GroupHealthOptions& options, absl::Time now);

  // This rank's own is known at once.
  void OnHeartbeat(int rank, RankProgress progress, absl::Time now);
  void OnClosed(int rank, absl::string_view why);
  void OnMalformed(int rank, absl::string_view why);
  // The rank leaves in good order.
  void OnLeave(int rank);
  // A rank, this one perhaps, cannot go on.
  void OnReport(int rank, absl::string_view error, absl::Time now);
  // The leader has told why the group ends.
  void OnAnnouncement(const GroupFailure& failure);

  // Of the leader's steps.
  void OnStepBegin(int64_t step, absl::Duration limit, absl::Time now);
  void OnStepEnd();

  // The failure, once there is one; then always the same.
  std::optional<GroupFailure> Decide(absl::Time now);

 private:
  struct Rank {
    bool watched = false;
    absl::Time last_heard;
    RankProgress progress;
    // The last step that it was seen in: idle, it has ended that.
    int64_t last_step = StepProgress::kIdle;
  };
  struct Report {
    int rank;
    std::string error;
    absl::Time time;
  };
  struct Step {
    int64_t number;
    absl::Duration limit;
    absl::Time begin;
  };

  void Fail(FailureCause cause, int rank, absl::string_view what);
  void CheckLiveness(absl::Time now);
  void CheckReport(absl::Time now);
  void CheckStep(absl::Time now);
  std::string PlaceOf(int rank) const;
  int SlowestRank() const;

  const int rank_;
  const GroupHealthOptions options_;
  std::vector<std::string> names_;  // "rank 2 (host a)"
  std::vector<Rank> ranks_;
  std::optional<Step> step_;
  std::optional<Report> report_;  // The first.
  std::optional<GroupFailure> failure_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_GROUP_HEALTH_H_
