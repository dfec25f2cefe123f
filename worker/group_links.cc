#include "worker/group_links.h"

#include <algorithm>
#include <utility>

#include "common/deadline.h"
#include "common/status_macros.h"
#include "common/ticker.h"
#include "glog/logging.h"
#include "worker/parallel/gloo_collective.h"
#include "worker/parallel/group_health.h"
#include "worker/parallel/rendezvous.h"

namespace lapidary {
namespace {

// What a rank gives that has nothing to tell but how a stage went.
absl::StatusOr<std::string> Outcome(const absl::Status& status) {
  if (status.ok()) return std::string();
  return status;
}

}  // namespace

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
                                        Deadline::In(options.timeout)));
    for (const Hello& hello : channel->hellos()) {
      LOG(INFO) << "met " << lapidary::NameOf(hello);
    }
  }
  return std::unique_ptr<GroupLinks>(
      new GroupLinks(options, std::move(channel)));
}

GroupLinks::GroupLinks(const Options& options,
                       std::unique_ptr<ControlChannel> channel)
    : rank_(options.rank),
      liveness_timeout_(options.liveness_timeout),
      hellos_(channel->hellos()),
      channel_(std::move(channel)) {}

int GroupLinks::ranks_on_this_host() const {
  const auto here = [this](const Hello& hello) {
    return hello.host == host(rank_);
  };
  return static_cast<int>(std::count_if(hellos_.begin(), hellos_.end(), here));
}

bool GroupLinks::first_on_this_host() const {
  return std::none_of(
      hellos_.begin(), hellos_.begin() + rank_,
      [this](const Hello& hello) { return hello.host == host(rank_); });
}

absl::StatusOr<std::vector<std::string>> GroupLinks::Share(
    const absl::StatusOr<std::string>& ours, absl::Duration timeout) {
  CHECK(channel_ != nullptr) << "the watchdog has the channel";
  if (size() > 1) return channel_->AllGather(ours, Deadline::In(timeout));
  RETURN_IF_ERROR(ours.status());
  return std::vector<std::string>{*ours};
}

absl::Status GroupLinks::Agree(const absl::Status& ours,
                               absl::Duration timeout) {
  return Share(Outcome(ours), timeout).status();
}

absl::Status GroupLinks::Run(absl::FunctionRef<absl::Status()> stage,
                             absl::Duration timeout) {
  CHECK(channel_ != nullptr) << "the watchdog has the channel";
  if (size() == 1) return stage();
  const Deadline deadline = Deadline::In(timeout);
  absl::Status ours;
  {
    Ticker ticker(kHeartbeatPeriod);
    const auto beats = ticker.Subscribe([this] { channel_->Beat(); });
    ours = stage();
  }
  return channel_->AllGather(Outcome(ours), deadline, liveness_timeout_)
      .status();
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
                       Watchdog::OnFailure on_failure) {
  CHECK(watchdog_ == nullptr);
  GroupHealthOptions options;
  options.liveness_timeout = liveness_timeout_;
  watchdog_ = std::make_unique<Watchdog>(std::move(channel_), progress, options,
                                         std::move(on_failure));
}

void GroupLinks::StopWatching() {
  watchdog_->Leave();
  watchdog_.reset();  // Its thread says farewell first.
}

}  // namespace lapidary
