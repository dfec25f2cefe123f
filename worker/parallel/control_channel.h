// Small messages between the leader and each other rank of a group, beside the
// tensors: how they start, and whether they live.

#ifndef WORKER_PARALLEL_CONTROL_CHANNEL_H_
#define WORKER_PARALLEL_CONTROL_CHANNEL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "worker/parallel/frame_connection.h"
#include "worker/parallel/hello.h"

namespace lapidary {

// One rank's end, from MeetRanks().  A group of one has no connections.
//
// Thread-compatible: at first of the thread that starts the rank, then of the
// Watchdog that it is given to.
class ControlChannel {
 public:
  // Bytes that a rank gives to an AllGather().
  static constexpr int kMaxGatherBytes = 64 << 10;

  // `connections` by rank: the leader's to all others, another rank's to the
  // leader; the rest are null.
  ControlChannel(int rank, std::vector<Hello> hellos, std::string local_address,
                 std::vector<std::unique_ptr<FrameConnection>> connections);
  ~ControlChannel();

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(hellos_.size()); }
  bool leads() const { return rank_ == 0; }

  // By rank.
  const std::vector<Hello>& hellos() const { return hellos_; }

  // The numeric address of this machine by which the others reach it.
  const std::string& local_address() const { return local_address_; }

  // Waits for all ranks, and returns what each gave, by rank.  If a rank gives
  // an error, or is lost, all ranks return that: the code, and the message
  // "rank 2 (host a): …".  Where others compute before they give, they Beat()
  // meanwhile, and one that is silent for `liveness_timeout` is lost; infinite
  // where they do not.
  //
  // Errors: also DEADLINE_EXCEEDED, naming the first rank that gave nothing;
  // UNAVAILABLE if one is gone or silent.  The channel is of no use then.
  //
  // REQUIRES: `own`, if it is a string, has at most kMaxGatherBytes.
  absl::StatusOr<std::vector<std::string>> AllGather(
      const absl::StatusOr<std::string>& own, Deadline deadline,
      absl::Duration liveness_timeout = absl::InfiniteDuration());

  // Tells the leader, or as the leader all others, that this rank lives: to be
  // called every kHeartbeatPeriod before an AllGather() with a liveness
  // timeout. Of another thread, if no other call is under way.
  void Beat();

  // For the Watchdog.  Null for this rank itself and where there is none.
  FrameConnection* connection(int rank) const {
    return connections_[rank].get();
  }

 private:
  // What the leader has of another rank.
  struct Part {
    std::optional<std::string> given;
    Deadline lost;  // Unless it is heard before.
  };

  absl::StatusOr<std::vector<std::string>> Collect(
      const absl::StatusOr<std::string>& own, Deadline deadline,
      absl::Duration liveness_timeout);
  absl::Status CollectFrom(int rank, absl::Duration liveness_timeout,
                           Part& part);
  absl::Status Take(const Frame& frame, Part& part);
  absl::StatusOr<std::vector<std::string>> Contribute(
      const absl::StatusOr<std::string>& own, Deadline deadline,
      absl::Duration liveness_timeout);
  absl::StatusOr<Frame> AwaitResult(Deadline deadline,
                                    absl::Duration liveness_timeout);
  void WaitForFrames(Deadline deadline) const;
  // `error`, as that of `rank`.
  absl::Status Blame(int rank, const absl::Status& error) const;

  const int rank_;
  const std::vector<Hello> hellos_;
  const std::string local_address_;
  const std::vector<std::unique_ptr<FrameConnection>> connections_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_CONTROL_CHANNEL_H_
