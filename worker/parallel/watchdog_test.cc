#include "worker/parallel/watchdog.h"

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/frame_connection.h"
#include "worker/parallel/group_health.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/step_progress.h"
#include "worker/parallel/tcp_socket.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

// Beats fast; only what has happened is a cause, not what takes long.
constexpr GroupHealthOptions kPatient = {
    .heartbeat_period = absl::Milliseconds(10),
    .liveness_timeout = absl::Minutes(5),
    .report_grace = absl::Milliseconds(50)};

// Keeps what a watchdog found.
class Finding {
 public:
  Watchdog::OnFailure AsCallback() {
    return [this](const GroupFailure& failure) {
      MutexLock lock(mutex_);
      EXPECT_FALSE(failure_.has_value()) << "a second failure";
      failure_ = failure;
      found_.SignalAll();
    };
  }
  GroupFailure Wait() {
    MutexLock lock(mutex_);
    while (!failure_.has_value()) found_.Wait(mutex_);
    return *failure_;
  }
  bool IsNone() {
    MutexLock lock(mutex_);
    return !failure_.has_value();
  }

 private:
  Mutex mutex_;
  CondVar found_;
  std::optional<GroupFailure> failure_ ABSL_GUARDED_BY(mutex_);
};

// The channels of a group in this process, over socket pairs.
std::vector<std::unique_ptr<ControlChannel>> Channels(int num_ranks) {
  std::vector<Hello> hellos;
  for (int rank = 0; rank < num_ranks; ++rank) {
    hellos.push_back({.rank = rank,
                      .num_ranks = num_ranks,
                      .host = absl::StrCat("h", rank),
                      .facts = {}});
  }
  using Connections = std::vector<std::unique_ptr<FrameConnection>>;
  Connections of_leader(num_ranks);
  std::vector<std::unique_ptr<ControlChannel>> channels(num_ranks);
  for (int rank = 1; rank < num_ranks; ++rank) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    const auto connection = [&](int end) {
      return std::make_unique<FrameConnection>(TcpSocket(ends[end]),
                                               kMaxFrameBytes);
    };
    of_leader[rank] = connection(0);
    Connections own(num_ranks);
    own[0] = connection(1);
    channels[rank] =
        std::make_unique<ControlChannel>(rank, hellos, "", std::move(own));
  }
  channels[0] =
      std::make_unique<ControlChannel>(0, hellos, "", std::move(of_leader));
  return channels;
}

// A group of three with a watchdog each.
class WatchdogTest : public ::testing::Test {
 protected:
  WatchdogTest() : channels_(Channels(3)) {}

  void Start(int rank, const GroupHealthOptions& options = kPatient) {
    dogs_[rank] =
        std::make_unique<Watchdog>(std::move(channels_[rank]), progress_[rank],
                                   options, findings_[rank].AsCallback());
  }
  void StartAll() {
    for (int rank = 0; rank < 3; ++rank) Start(rank);
  }
  // Of a rank without a watchdog: what it would send, and its end.
  FrameConnection& Wire(int rank) { return *channels_[rank]->connection(0); }

  std::vector<std::unique_ptr<ControlChannel>> channels_;
  StepProgress progress_[3];
  Finding findings_[3];
  std::unique_ptr<Watchdog> dogs_[3];
};

TEST_F(WatchdogTest, AllRanksNameTheRankThatIsGone) {
  progress_[2].step = 17;
  progress_[2].layer = 3;
  Start(0);
  Start(1);
  channels_[2] = nullptr;
  const GroupFailure failure = findings_[0].Wait();
  EXPECT_EQ(failure.cause, FailureCause::kDisconnected);
  EXPECT_THAT(failure.message,
              HasSubstr("rank 2 (host h2): its connection closed"));
  EXPECT_EQ(findings_[1].Wait(), failure);
}

TEST_F(WatchdogTest, SaysWhereARankWas) {
  Start(0);
  Start(1);
  const std::string heartbeat("\x11\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0", 16);
  ASSERT_OK(Wire(2).Send(FrameType::kHeartbeat, heartbeat));
  channels_[2] = nullptr;
  EXPECT_THAT(findings_[1].Wait().message, HasSubstr("(at step 17, layer 3)"));
}

TEST_F(WatchdogTest, NamesARankThatSendsGarbage) {
  Start(0);
  Start(1);
  const std::string request = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_GT(send(Wire(2).socket().fd(), request.data(), request.size(), 0), 0);
  const GroupFailure failure = findings_[1].Wait();
  EXPECT_EQ(failure.cause, FailureCause::kMalformed);
  EXPECT_THAT(failure.message, HasSubstr("rank 2 (host h2): needs a frame"));
}

TEST_F(WatchdogTest, NamesARankWhoseFramesAreMalformed) {
  Start(0);
  ASSERT_OK(Wire(2).Send(FrameType::kHeartbeat, "short"));
  EXPECT_EQ(findings_[0].Wait().cause, FailureCause::kMalformed);
}

TEST_F(WatchdogTest, NamesARankThatSendsWhatOnlyTheLeaderMay) {
  Start(0);
  ASSERT_OK(Wire(2).Send(FrameType::kWelcome, ""));
  EXPECT_EQ(findings_[0].Wait().cause, FailureCause::kMalformed);
}

TEST_F(WatchdogTest, NamesASilentRank) {
  GroupHealthOptions options = kPatient;
  options.liveness_timeout = absl::Milliseconds(200);
  Start(0, options);
  Start(1);
  const GroupFailure failure = findings_[1].Wait();
  EXPECT_EQ(failure.cause, FailureCause::kSilent);
  EXPECT_THAT(failure.message, HasSubstr("rank 2 (host h2): no heartbeat for"));
}

TEST_F(WatchdogTest, OthersNameALeaderThatIsGone) {
  Start(1);
  Start(2);
  channels_[0] = nullptr;
  EXPECT_THAT(findings_[1].Wait().message, HasSubstr("rank 0 (host h0)"));
  EXPECT_EQ(findings_[1].Wait(), findings_[2].Wait());
}

TEST_F(WatchdogTest, AllRanksNameTheErrorOfOne) {
  StartAll();
  dogs_[1]->Report(absl::InternalError("out of memory"));
  const GroupFailure failure = findings_[1].Wait();
  EXPECT_EQ(failure.cause, FailureCause::kReported);
  EXPECT_THAT(failure.message, HasSubstr("rank 1 (host h1): out of memory"));
  EXPECT_EQ(findings_[0].Wait(), failure);
  EXPECT_EQ(findings_[2].Wait(), failure);
}

TEST_F(WatchdogTest, AllRanksNameTheErrorOfTheLeader) {
  StartAll();
  dogs_[0]->Report(absl::InternalError("out of memory"));
  EXPECT_THAT(findings_[2].Wait().message,
              HasSubstr("rank 0 (host h0): out of memory"));
  EXPECT_EQ(findings_[0].Wait(), findings_[2].Wait());
}

TEST_F(WatchdogTest, EndsAStepThatTakesTooLong) {
  StartAll();
  dogs_[0]->BeginStep(17, absl::ZeroDuration());
  const GroupFailure failure = findings_[1].Wait();
  EXPECT_EQ(failure.cause, FailureCause::kOverdue);
  EXPECT_THAT(failure.message, HasSubstr("step 17 takes longer than 0.0 s"));
}

TEST_F(WatchdogTest, NobodyMissesRanksThatLeave) {
  StartAll();
  dogs_[1]->Leave();
  dogs_[1] = nullptr;
  dogs_[0]->Leave();
  dogs_[0] = nullptr;
  dogs_[2]->Leave();
  dogs_[2] = nullptr;
  for (Finding& finding : findings_) EXPECT_TRUE(finding.IsNone());
}

TEST_F(WatchdogTest, ADestructorIsNoLeave) {
  StartAll();
  dogs_[1] = nullptr;
  EXPECT_THAT(findings_[0].Wait().message, HasSubstr("rank 1 (host h1)"));
}

TEST(WatchdogOfOneTest, HasNothingToWatch) {
  const StepProgress progress;
  Watchdog dog(std::move(Channels(1)[0]), progress, kPatient,
               [](const GroupFailure&) { FAIL(); });
  dog.BeginStep(1, absl::ZeroDuration());
  dog.EndStep();
  dog.Leave();
}

}  // namespace
}  // namespace lapidary
