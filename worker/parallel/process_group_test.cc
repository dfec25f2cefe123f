// A group of real processes: they meet, connect and exchange, and miss one that
// is killed.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/gloo_collective.h"
#include "worker/parallel/group_health.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/rendezvous.h"
#include "worker/parallel/step_progress.h"
#include "worker/parallel/tcp_socket.h"
#include "worker/parallel/watchdog.h"

namespace lapidary {
namespace {

constexpr int kNumRanks = 3;
constexpr int kValues = 10007;

constexpr absl::Duration kPatience = absl::Minutes(2);

Deadline Later() { return Deadline::In(kPatience); }

Tensor View(std::vector<float>& values) {
  const int size = static_cast<int>(values.size());
  return {values.data(), DType::kF32, 1, size, size};
}

// A rank of the group, in a process of its own.
class Rank {
 public:
  Rank(int rank, TcpSocket& listener) {
    const Hello own = {
        .rank = rank, .num_ranks = kNumRanks, .host = "h", .facts = {}};
    const std::string address =
        absl::StrCat("127.0.0.1:", listener.LocalPort());
    auto channel = rank == 0 ? LeadMeeting(own, std::move(listener), Later())
                             : JoinMeeting(own, address, Later());
    if (!channel.ok()) return;
    channel_ = *std::move(channel);
    auto collective =
        ConnectGloo({.rank = rank,
                     .num_ranks = kNumRanks,
                     .host = channel_->local_address(),
                     .all_gather =
                         [&](std::string own) {
                           return channel_->AllGather(std::move(own), Later());
                         },
                     .deadline = Deadline::In(kPatience)});
    if (collective.ok()) collective_ = *std::move(collective);
  }

  bool ok() const { return collective_ != nullptr; }
  int rank() const { return collective_->rank(); }
  Collective& collective() { return *collective_; }
  std::unique_ptr<ControlChannel> TakeChannel() { return std::move(channel_); }

 private:
  std::unique_ptr<ControlChannel> channel_;
  std::unique_ptr<Collective> collective_;
};

// Runs `body` as each rank; returns how the processes ended, as of waitpid().
std::vector<int> RunProcesses(const std::function<bool(Rank&)>& body) {
  absl::StatusOr<TcpSocket> listener = ListenAt("127.0.0.1:0");
  EXPECT_TRUE(listener.ok());
  std::vector<pid_t> pids;
  for (int rank = 0; rank < kNumRanks; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      Rank process(rank, *listener);
      _exit(process.ok() && body(process) ? 0 : 1);
    }
    pids.push_back(pid);
  }
  std::vector<int> ends;
  for (const pid_t pid : pids) {
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    ends.push_back(status);
  }
  return ends;
}

bool Sums(Collective& collective) {
  std::vector<float> x(kValues, 1.0f + collective.rank());
  return collective.AllReduceSum(Traffic::kHead, View(x)).ok() &&
         x == std::vector<float>(kValues, 1.0f + 2.0f + 3.0f);
}

TEST(ProcessGroupTest, MeetsConnectsAndSums) {
  const auto ends = RunProcesses([](Rank& rank) {
    if (!Sums(rank.collective())) return false;
    std::unique_ptr<ControlChannel> channel = rank.TakeChannel();
    // All have their sums: a connection that closes may lose what is under way.
    if (!channel->AllGather("done", Later()).ok()) return false;
    const StepProgress progress;
    Watchdog watchdog(std::move(channel), progress, {},
                      [](const GroupFailure&) { _exit(2); });
    watchdog.Leave();
    return true;
  });
  EXPECT_THAT(ends, ::testing::Each(0));
}

TEST(ProcessGroupTest, AllOthersSayThatARankWasKilled) {
  const auto ends = RunProcesses([](Rank& rank) {
    const StepProgress progress;
    Watchdog watchdog(
        rank.TakeChannel(), progress, {}, [](const GroupFailure& failure) {
          const bool right =
              failure.cause == FailureCause::kDisconnected &&
              absl::StrContains(failure.message, "rank 2 (host h)");
          _exit(right ? 7 : 8);
        });
    if (!Sums(rank.collective())) return false;
    if (rank.rank() == 2) kill(getpid(), SIGKILL);
    // A sum without rank 2 fails, and the watchdog says why.
    std::vector<float> x(kValues);
    const absl::Status status =
        rank.collective().AllReduceSum(Traffic::kHead, View(x));
    if (status.ok()) return false;
    watchdog.Report(status);
    pause();
    return false;
  });
  EXPECT_EQ(WEXITSTATUS(ends[0]), 7);
  EXPECT_EQ(WEXITSTATUS(ends[1]), 7);
  EXPECT_EQ(WTERMSIG(ends[2]), SIGKILL);
}

}  // namespace
}  // namespace lapidary
