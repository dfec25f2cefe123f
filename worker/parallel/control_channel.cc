#include "worker/parallel/control_channel.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "glog/logging.h"
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
    const absl::StatusOr<std::string>& own, absl::Time deadline) {
  if (own.ok()) CHECK_LE(static_cast<int>(own->size()), kMaxGatherBytes);
  if (!leads()) return Contribute(own, deadline);
  const absl::StatusOr<std::vector<std::string>> all = Collect(own, deadline);
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

// Of the leader.  The first error ends it, whatever the others would give.
absl::StatusOr<std::vector<std::string>> ControlChannel::Collect(
    const absl::StatusOr<std::string>& own, absl::Time deadline) {
  if (!own.ok()) return Blame(rank_, own.status());
  std::vector<std::optional<std::string>> parts(size());
  parts[rank_] = *own;
  while (true) {
    for (int rank = 1; rank < size(); ++rank) {
      if (!parts[rank].has_value()) {
        RETURN_IF_ERROR(CollectFrom(rank, parts));
      }
    }
    const auto missing = std::find(parts.begin(), parts.end(), std::nullopt);
    if (missing == parts.end()) break;
    if (absl::Now() >= deadline) {
      return Blame(static_cast<int>(missing - parts.begin()),
                   absl::DeadlineExceededError("it said nothing in time"));
    }
    WaitForFrames(deadline);
  }
  std::vector<std::string> all;
  for (std::optional<std::string>& part : parts) {
    all.push_back(*std::move(part));
  }
  return all;
}

// Takes what `rank` gives, if it is there.
absl::Status ControlChannel::CollectFrom(
    int rank, std::vector<std::optional<std::string>>& parts) {
  const absl::StatusOr<std::optional<Frame>> frame = connections_[rank]->Next();
  if (!frame.ok()) return Blame(rank, frame.status());
  if (!frame->has_value()) return absl::OkStatus();
  absl::StatusOr<std::string> part;
  absl::Status status = DecodeResult((*frame)->payload, part);
  if (status.ok() && (*frame)->type != FrameType::kGather) {
    status = absl::InvalidArgumentError("it sent another frame than was due");
  }
  if (!status.ok()) return Blame(rank, status);
  if (!part.ok()) return Blame(rank, part.status());
  parts[rank] = *std::move(part);
  return absl::OkStatus();
}

void ControlChannel::WaitForFrames(absl::Time deadline) const {
  std::vector<pollfd> events;
  for (int rank = 1; rank < size(); ++rank) {
    events.push_back({connections_[rank]->socket().fd(), POLLIN, 0});
  }
  poll(events.data(), events.size(), MillisecondsUntil(deadline));
}

// Of another rank.  The leader's answer has the name of the rank to blame.
absl::StatusOr<std::vector<std::string>> ControlChannel::Contribute(
    const absl::StatusOr<std::string>& own, absl::Time deadline) {
  FrameConnection& leader = *connections_[0];
  absl::StatusOr<Frame> frame = absl::InternalError("no answer");
  if (absl::Status sent = leader.Send(FrameType::kGather, EncodeResult(own));
      !sent.ok()) {
    frame = sent;
  } else if (sent = leader.FlushBy(deadline); !sent.ok()) {
    frame = sent;
  } else {
    frame = leader.NextBy(deadline + kExplanationGrace);
  }
  if (!frame.ok()) {
    return own.ok() ? Blame(0, frame.status()) : Blame(rank_, own.status());
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

absl::Status ControlChannel::Blame(int rank, const absl::Status& error) const {
  return {error.code(),
          absl::StrCat(NameOf(hellos_[rank]), ": ", error.message())};
}

}  // namespace lapidary
