// What joins the ranks of a group: they meet, agree stage by stage on how the
// start went, exchange tensors, and watch each other.
//
//   Meet ─► Run, Share … ─► Connect ─► collective() ─► Watch ─► StopWatching
//
// In a group of one nobody is asked, and there are no sockets.

#ifndef WORKER_GROUP_LINKS_H_
#define WORKER_GROUP_LINKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/local_collective.h"
#include "worker/parallel/step_progress.h"
#include "worker/parallel/watchdog.h"

namespace lapidary {

// Owned by main()'s thread; its collective() by the engine's.
class GroupLinks {
 public:
  struct Options {
    int rank = 0;
    int num_ranks = 1;
    std::string rendezvous;           // HOST:PORT of rank 0.
    absl::Duration timeout;           // Of meeting.
    absl::Duration liveness_timeout;  // Of ranks that are silent.
    std::vector<Fact> facts;          // What must be the same on all ranks.
  };

  // Errors: those of MeetRanks().
  static absl::StatusOr<std::unique_ptr<GroupLinks>> Meet(
      const Options& options);

  GroupLinks(const GroupLinks&) = delete;
  GroupLinks& operator=(const GroupLinks&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(hellos_.size()); }
  const std::string& host(int rank) const { return hellos_[rank].host; }
  // "rank 2 (south)", for errors.
  std::string NameOfRank(int rank) const { return NameOf(hellos_[rank]); }
  // Ranks of the group that share this one's host, itself included.
  int ranks_on_this_host() const;
  // Whether this is the least of them.
  bool first_on_this_host() const;

  // Start-up in stages, each of which ends alike on all ranks: gives every
  // rank's string to all, or the first error that a rank has.
  //
  // REQUIRES of all: Watch() has not been called.
  absl::StatusOr<std::vector<std::string>> Share(
      const absl::StatusOr<std::string>& ours, absl::Duration timeout);
  absl::Status Agree(const absl::Status& ours, absl::Duration timeout);

  // Runs what takes long, and agrees on how it went.  A rank that hangs in it
  // is missed by those that wait for it, after the liveness timeout.  `stage`
  // must not call this.
  absl::Status Run(absl::FunctionRef<absl::Status()> stage,
                   absl::Duration timeout);

  // Opens the links of collective().  Called on all ranks.
  //
  // Errors: those of ConnectGloo().
  absl::Status Connect(absl::Duration timeout);

  // REQUIRES: Connect() has succeeded.
  Collective& collective() { return *collective_; }

  // From here on the ranks watch each other.  `progress` must outlive this.
  // Called on all ranks, once.
  void Watch(const StepProgress& progress, Watchdog::OnFailure on_failure);

  // This rank goes in good order, and so do the others: nobody is missed.
  // Returns when they know.
  void StopWatching();

  // Null before Watch() and after StopWatching().
  Watchdog* watchdog() { return watchdog_.get(); }

 private:
  GroupLinks(const Options& options, std::unique_ptr<ControlChannel> channel);

  const int rank_;
  const absl::Duration liveness_timeout_;
  const std::vector<Hello> hellos_;
  std::unique_ptr<ControlChannel> channel_;  // The watchdog's, later.
  LocalGroup alone_{1};
  std::unique_ptr<Collective> between_processes_;
  Collective* collective_ = nullptr;  // One of the two.
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace lapidary

#endif  // WORKER_GROUP_LINKS_H_
