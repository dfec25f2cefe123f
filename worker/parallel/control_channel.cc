#include "worker/parallel/control_channel.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/group_health.h"
#include "worker/parallel/wire.h"

namespace lapidary {
namespace {

// What a rank waits for the leader's explanation after its own deadline.
constexpr absl::Duration kExplanationGrace = absl::Seconds(1);

}  // namespace

ControlChannel::ControlChannel(
    int rank, std::vector<Hello> hellos, std::string local_address,
    std::vector<std::unique_ptr<FrameConnection>> connections)
    : rank_(rank),
      hellos_(std::move(hellos)),
      local_address_(std::move(local_address)),
      connections_(std::move(connections)) {
  CHECK_EQ(connections_.size(), hellos_.size());
  for (const auto& connection : connections_) {
    if (connection != nullptr) connection->set_max_payload(kMaxFrameBytes);
  }
}

ControlChannel::~ControlChannel() = default;

absl::StatusOr<std::vector<std::string>> ControlChannel::AllGather(
    const absl::StatusOr<std::string>& own, Deadline deadline,
    absl::Duration liveness_timeout) {
  if (own.ok()) CHECK_LE(static_cast<int>(own->size()), kMaxGatherBytes);
  if (!leads()) return Contribute(own, deadline, liveness_timeout);
  const absl::StatusOr<std::vector<std::string>> all =
      Collect(own, deadline, liveness_timeout);
  const std::string result =
      EncodeResult(all.ok() ? absl::StatusOr<std::string>(EncodeList(*all))
                            : absl::StatusOr<std::string>(all.status()));
  for (int rank = 1; rank < size(); ++rank) {
    const absl::Status sent =
        connections_[rank]->Send(FrameType::kGathered, result);
    // Where there is an error already, that rank may be its cause.
    if (!sent.ok() && all.ok()) return Blame(rank, sent);
  }
  for (int rank = 1; rank < size() && all.ok(); ++rank) {
    const absl::Status sent = connections_[rank]->FlushBy(deadline);
    if (!sent.ok()) return Blame(rank, sent);
  }
  return all;
}

// An error shows again, when the connection is read.
void ControlChannel::Beat() {
  for (const auto& connection : connections_) {
    if (connection == nullptr) continue;
    connection->Send(FrameType::kHeartbeat, "").IgnoreError();
  }
}

// Of the leader.  The first error ends it, whatever the others would give.
absl::StatusOr<std::vector<std::string>> ControlChannel::Collect(
    const absl::StatusOr<std::string>& own, Deadline deadline,
    absl::Duration liveness_timeout) {
  if (!own.ok()) return Blame(rank_, own.status());
  std::vector<Part> parts(size(),
                          {std::nullopt, Deadline::In(liveness_timeout)});
  parts[rank_].given = *own;
  Deadline next_beat = Deadline::In(absl::ZeroDuration());
  while (true) {
    for (int rank = 1; rank < size(); ++rank) {
      RETURN_IF_ERROR(CollectFrom(rank, liveness_timeout, parts[rank]));
    }
    const auto missing =
        std::find_if(parts.begin(), parts.end(),
                     [](const Part& part) { return !part.given.has_value(); });
    if (missing == parts.end()) break;
    if (deadline.has_passed()) {
      return Blame(static_cast<int>(missing - parts.begin()),
                   absl::DeadlineExceededError("it said nothing in time"));
    }
    if (next_beat.has_passed()) {
      Beat();
      next_beat = Deadline::In(kHeartbeatPeriod);
    }
    WaitForFrames(std::min(deadline, next_beat));
  }
  std::vector<std::string> all;
  for (Part& part : parts) all.push_back(*std::move(part.given));
  return all;
}

// Takes what `rank` gives, if it is there; one that has given may be lost, too.
absl::Status ControlChannel::CollectFrom(int rank,
                                         absl::Duration liveness_timeout,
                                         Part& part) {
  while (true) {
    const absl::StatusOr<std::optional<Frame>> frame =
        connections_[rank]->Next();
    if (!frame.ok()) return Blame(rank, frame.status());
    if (!frame->has_value()) break;
    const absl::Status taken = Take(**frame, part);
    if (!taken.ok()) return Blame(rank, taken);
    part.lost = Deadline::In(liveness_timeout);
  }
  if (part.given.has_value() || !part.lost.has_passed()) {
    return absl::OkStatus();
  }
  return Blame(rank, absl::UnavailableError(DescribeSilence(liveness_timeout)));
}

absl::Status ControlChannel::Take(const Frame& frame, Part& part) {
  if (frame.type == FrameType::kHeartbeat) return absl::OkStatus();
  absl::StatusOr<std::string> given;
  RETURN_IF_ERROR(DecodeResult(frame.payload, given));
  if (frame.type != FrameType::kGather || part.given.has_value()) {
    return absl::InvalidArgumentError("it sent another frame than was due");
  }
  RETURN_IF_ERROR(given.status());
  part.given = *std::move(given);
  return absl::OkStatus();
}

void ControlChannel::WaitForFrames(Deadline deadline) const {
  std::vector<pollfd> events;
  for (int rank = 1; rank < size(); ++rank) {
    events.push_back({connections_[rank]->socket().fd(), POLLIN, 0});
  }
  poll(events.data(), events.size(), deadline.PollTimeout());
}

// Of another rank.  The leader's answer has the name of the rank to blame.
absl::StatusOr<std::vector<std::string>> ControlChannel::Contribute(
    const absl::StatusOr<std::string>& own, Deadline deadline,
    absl::Duration liveness_timeout) {
  FrameConnection& leader = *connections_[0];
  absl::Status sent = leader.Send(FrameType::kGather, EncodeResult(own));
  if (sent.ok()) sent = leader.FlushBy(deadline);
  // The leader may have said why, and gone, before it was sent anything.
  const absl::StatusOr<Frame> frame =
      AwaitResult(sent.ok() ? deadline + kExplanationGrace
                            : Deadline::In(absl::ZeroDuration()),
                  liveness_timeout);
  if (!frame.ok()) {
    if (!own.ok()) return Blame(rank_, own.status());
    return Blame(0, sent.ok() ? frame.status() : sent);
  }
  absl::StatusOr<std::string> all;
  absl::Status status = DecodeResult(frame->payload, all);
  if (status.ok() && frame->type != FrameType::kGathered) {
    status = absl::InvalidArgumentError("it sent another frame than was due");
  }
  if (!status.ok()) return Blame(0, status);
  RETURN_IF_ERROR(all.status());
  absl::StatusOr<std::vector<std::string>> list = DecodeList(*all, size());
  if (!list.ok()) return Blame(0, list.status());
  return list;
}

// The leader's next frame but for heartbeats.
absl::StatusOr<Frame> ControlChannel::AwaitResult(
    Deadline deadline, absl::Duration liveness_timeout) {
  while (true) {
    const Deadline lost = Deadline::In(liveness_timeout);
    absl::StatusOr<Frame> frame =
        connections_[0]->NextBy(std::min(deadline, lost));
    if (absl::IsDeadlineExceeded(frame.status()) && lost < deadline) {
      return absl::UnavailableError(DescribeSilence(liveness_timeout));
    }
    if (!frame.ok() || frame->type != FrameType::kHeartbeat) return frame;
  }
}

absl::Status ControlChannel::Blame(int rank, const absl::Status& error) const {
  return {error.code(),
          absl::StrCat(NameOf(hellos_[rank]), ": ", error.message())};
}

}  // namespace lapidary
