#include "worker/group_links.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/deadline.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/gloo_collective.h"
#include "worker/parallel/rendezvous.h"

namespace lapidary {

absl::StatusOr<std::unique_ptr<GroupLinks>> GroupLinks::Meet(
    const Options& options) {
  const Hello own = {.rank = options.rank,
                     .num_ranks = options.num_ranks,
                     .host = HostName(),
                     .facts = options.facts};
  std::unique_ptr<ControlChannel> channel;
  if (options.num_ranks == 1) {
    channel = std::make_unique<ControlChannel>(
        /*rank=*/0, std::vector<Hello>{own}, /*local_address=*/"",
        std::vector<std::unique_ptr<FrameConnection>>(1));
  } else {
    LOG(INFO) << "meeting " << options.num_ranks << " ranks at "
              << options.rendezvous << ", for " << options.timeout;
    ASSIGN_OR_RETURN(channel, MeetRanks(own, options.rendezvous,
                                        absl::Now() + options.timeout));
    for (const Hello& hello : channel->hellos()) {
      LOG(INFO) << "met " << lapidary::NameOf(hello);
    }
  }
  return std::unique_ptr<GroupLinks>(
      new GroupLinks(options.rank, std::move(channel)));
}

GroupLinks::GroupLinks(int rank, std::unique_ptr<ControlChannel> channel)
    : rank_(rank), hellos_(channel->hellos()), channel_(std::move(channel)) {}

int GroupLinks::ranks_on_this_host() const {
  const auto here = [this](const Hello& hello) {
    return hello.host == host(rank_);
  };
  return static_cast<int>(std::count_if(hellos_.begin(), hellos_.end(), here));
}

absl::StatusOr<std::vector<std::string>> GroupLinks::Share(
    const absl::StatusOr<std::string>& ours, absl::Duration timeout) {
  CHECK(channel_ != nullptr) << "the watchdog has the channel";
  if (size() > 1) return channel_->AllGather(ours, absl::Now() + timeout);
  RETURN_IF_ERROR(ours.status());
  return std::vector<std::string>{*ours};
}

absl::Status GroupLinks::Agree(const absl::Status& ours,
                               absl::Duration timeout) {
  if (ours.ok()) return Share(std::string(), timeout).status();
  return Share(ours, timeout).status();
}

absl::Status GroupLinks::Connect(absl::Duration timeout) {
  collective_ = &alone_.rank(0);
  if (size() == 1) return absl::OkStatus();
  ASSIGN_OR_RETURN(between_processes_,
                   ConnectGloo({.rank = rank_,
                                .num_ranks = size(),
                                .host = channel_->local_address(),
                                .all_gather =
                                    [this, timeout](std::string ours) {
                                      return Share(std::move(ours), timeout);
                                    },
                                .deadline = Deadline::In(timeout)}));
  collective_ = between_processes_.get();
  return absl::OkStatus();
}

void GroupLinks::Watch(const StepProgress& progress,
                       absl::Duration liveness_timeout,
                       Watchdog::OnFailure on_failure) {
  CHECK(watchdog_ == nullptr);
  GroupHealthOptions options;
  options.liveness_timeout = liveness_timeout;
  watchdog_ = std::make_unique<Watchdog>(std::move(channel_), progress, options,
                                         std::move(on_failure));
}

void GroupLinks::StopWatching() {
  watchdog_->Leave();
  watchdog_.reset();  // Its thread says farewell first.
}

}  // namespace lapidary
