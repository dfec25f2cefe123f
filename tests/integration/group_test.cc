// One request over several worker processes: the same answers, what the ranks
// tell of themselves, how a group starts, and how it ends.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/ask.h"
#include "tests/integration/cluster.h"
#include "tests/integration/foreign_socket.h"
#include "tests/integration/stopped_thread.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Optional;

// Of worker_main, once its group has served.
constexpr int kExitGroupFailed = 3;

const absl::Duration kPatience = absl::Seconds(90);

// Small enough for a prompt of 4K to take several rounds.
const Flags kSmallRounds = {"--round-tokens", "512", "--step-tokens", "256"};

std::string Question(int tokens) {
  return absl::StrCat(DocumentWithFact(tokens - 64, 30), kQuestion);
}

void ExpectTheAnswer(Cluster& cluster, int tokens) {
  const Reply reply = Ask(cluster.stub(), ChatRequest(Question(tokens)));
  ASSERT_OK(reply.status);
  EXPECT_EQ(absl::StripAsciiWhitespace(reply.text), kAnswer);
}

class GroupTest : public ::testing::TestWithParam<int> {
 protected:
  GroupTest() {
    cluster_.StartGroup(GetParam(), kSmallRounds);
    cluster_.StartRouter();
    cluster_.WaitForGroup();
  }

  Cluster cluster_;
};

TEST_P(GroupTest, AnswersRight) {
  for (const int tokens : {1024, 4096}) {
    SCOPED_TRACE(tokens);
    ExpectTheAnswer(cluster_, tokens);
  }
}

TEST_P(GroupTest, StatusShowsTheRanksAndTheSplit) {
  ExpectTheAnswer(cluster_, 4096);
  ASSERT_TRUE(Eventually(kPatience, [this] {
    return cluster_.Status().groups(0).last_split().computed_tokens() > 4000;
  })) << cluster_.Status().DebugString();
  const v1::GroupStatus group = cluster_.Status().groups(0);
  EXPECT_EQ(group.ranks(), GetParam());
  ASSERT_EQ(group.rank_status_size(), GetParam());
  for (const v1::RankStatus& rank : group.rank_status()) {
    EXPECT_NE(rank.host(), "");
    EXPECT_THAT(rank.device(), HasSubstr("1 CPU thread"));
    EXPECT_GT(rank.global_pages().total(), 0u);
    EXPECT_GT(rank.replica_bytes(), 0u);
  }
  const v1::PromptSplit& split = group.last_split();
  EXPECT_NEAR(split.prompt_tokens(), 4096, 128);
  EXPECT_GT(split.token_split_rounds() + split.head_split_steps(), 1u);
  EXPECT_GT(split.seconds(), 0);
  ASSERT_EQ(split.received_bytes_size(), GetParam());
  for (const uint64_t bytes : split.received_bytes()) EXPECT_GT(bytes, 0u);
}

TEST_P(GroupTest, EveryRankHasMetrics) {
  ExpectTheAnswer(cluster_, 1024);
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_THAT(MetricsPage(cluster_.rank(rank).metrics),
                AllOf(HasSubstr("lapidary_worker_steps_total"),
                      HasSubstr("lapidary_worker_transfer_bytes_total"),
                      HasSubstr("lapidary_worker_link_bytes_per_second")))
        << rank;
  }
}

TEST_P(GroupTest, ATerminatedLeaderFinishesWhatRunsAndStopsAll) {
  const Reply reply =
      Ask(cluster_.stub(), EndlessRequest(200), [this](grpc::ClientContext&) {
        cluster_.worker().process->Signal(SIGTERM);
      });
  ASSERT_OK(reply.status);
  EXPECT_EQ(reply.token_ids.size(), 200u);
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_THAT(cluster_.rank(rank).process->Wait(kPatience), Optional(0))
        << cluster_.rank(rank).process->Output();
  }
}

TEST_P(GroupTest, AllRanksToldToStopTogetherEndWell) {
  for (int rank = GetParam() - 1; rank >= 0; --rank) {
    cluster_.rank(rank).process->Signal(SIGTERM);
  }
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_THAT(cluster_.rank(rank).process->Wait(kPatience), Optional(0))
        << cluster_.rank(rank).process->Output();
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, GroupTest, ::testing::Values(2, 4));

class GroupFailureTest : public ::testing::Test {
 protected:
  static constexpr int kRanks = 2;

  GroupFailureTest() {
    cluster_.StartGroup(kRanks, kSmallRounds);
    cluster_.StartRouter();
    cluster_.WaitForGroup();
  }

  // Does `harm` while a request runs, which then is UNAVAILABLE.
  template <typename Harm>
  void HarmARunningRequest(Harm harm) {
    const Reply reply = Ask(cluster_.stub(), EndlessRequest(),
                            [&](grpc::ClientContext&) { harm(); });
    EXPECT_EQ(reply.status.code(), absl::StatusCode::kUnavailable)
        << reply.status;
    EXPECT_TRUE(GetRetryDelay(reply.status).has_value()) << reply.status;
  }

  // `rank` ends by itself and says that `culprit` is why.
  void ExpectItEnds(int rank, int culprit) {
    Process& process = *cluster_.rank(rank).process;
    EXPECT_THAT(process.Wait(kPatience), Optional(kExitGroupFailed))
        << process.Output();
    EXPECT_THAT(process.Output(), HasSubstr("worker_main: the group failed: "));
    EXPECT_THAT(process.Output(), HasSubstr(absl::StrCat("rank ", culprit)));
  }

  // A supervisor starts the group again, at its address.
  void ExpectThatItComesBack() {
    Flags flags = kSmallRounds;
    flags.insert(flags.end(), {"--listen", cluster_.worker().rpc});
    cluster_.StartGroup(kRanks, flags);
    cluster_.WaitForGroup();
    ExpectTheAnswer(cluster_, 1024);
  }

  Cluster cluster_;
};

TEST_F(GroupFailureTest, AKilledFollowerEndsTheGroup) {
  HarmARunningRequest([this] { cluster_.rank(1).process->Signal(SIGKILL); });
  ExpectItEnds(0, 1);
  EXPECT_THAT(cluster_.Status().groups(0).last_failure(), HasSubstr("rank 1"));
  EXPECT_TRUE(Eventually(kPatience, [this] {
    return MetricsPage(cluster_.router().metrics)
               .find("lapidary_router_group_failures_total") !=
           std::string::npos;
  }));
  ExpectThatItComesBack();
}

TEST_F(GroupFailureTest, AKilledLeaderEndsTheGroup) {
  HarmARunningRequest([this] { cluster_.rank(0).process->Signal(SIGKILL); });
  ExpectItEnds(1, 0);
  ExpectThatItComesBack();
}

TEST_F(GroupFailureTest, AStoppedFollowerEndsTheGroup) {
  HarmARunningRequest([this] { cluster_.rank(1).process->Signal(SIGSTOP); });
  ExpectItEnds(0, 1);
  cluster_.rank(1).process->Signal(SIGCONT);
  EXPECT_THAT(cluster_.rank(1).process->Wait(kPatience),
              Optional(kExitGroupFailed));
  ExpectThatItComesBack();
}

TEST_F(GroupFailureTest, AnIdleGroupMissesAStoppedFollower) {
  cluster_.rank(1).process->Signal(SIGSTOP);
  ExpectItEnds(0, 1);
}

TEST_F(GroupFailureTest, AFollowerStuckInAStepEndsTheGroup) {
  StoppedThread stuck;
  HarmARunningRequest(
      [&] { stuck.Stop(cluster_.rank(1).process->pid(), "engine"); });
  ExpectItEnds(0, 1);
  stuck.AwaitEnd();
  ExpectItEnds(1, 1);
}

TEST_F(GroupFailureTest, AFollowerThatIsToldToStopTwiceEndsTheGroup) {
  Process& follower = *cluster_.rank(1).process;
  follower.Signal(SIGTERM);
  // Signals that wait together are one: the first has to be seen.
  ASSERT_TRUE(Eventually(kPatience, [&] {
    return follower.Output().find("stopping once") != std::string::npos;
  }));
  ExpectTheAnswer(cluster_, 1024);
  follower.Signal(SIGTERM);
  ExpectItEnds(0, 1);
  ExpectItEnds(1, 1);
}

TEST_F(GroupFailureTest, ARankThatSendsGarbageEndsTheGroup) {
  HarmARunningRequest([this] {
    SendAs(cluster_.rank(1).process->pid(), cluster_.rendezvous(),
           std::string(1000, '\x5a'));
  });
  ExpectItEnds(0, 1);
  ExpectItEnds(1, 1);
  ExpectThatItComesBack();
}

TEST_F(GroupFailureTest, AnIdleGroupGoesOn) {
  // Longer than silence is borne.
  EXPECT_FALSE(Eventually(absl::Seconds(8), [this] {
    return cluster_.rank(0).process->Wait(absl::ZeroDuration()).has_value() ||
           cluster_.rank(1).process->Wait(absl::ZeroDuration()).has_value();
  }));
  ExpectTheAnswer(cluster_, 1024);
}

// Groups that cannot start: every process ends with a line that says why.
class GroupStartTest : public ::testing::Test {
 protected:
  std::unique_ptr<Process> Start(int rank, int ranks, const Flags& flags = {}) {
    return cluster_.RunRank(rank, ranks, rendezvous_, flags);
  }

  static void ExpectRefused(Process& process, const std::string& why) {
    EXPECT_THAT(process.Wait(kPatience), Optional(1)) << process.Output();
    EXPECT_THAT(process.Output(),
                AllOf(HasSubstr("worker_main: "), HasSubstr(why)));
  }

  Cluster cluster_;
  const std::string rendezvous_ = FreeAddress();
};

TEST_F(GroupStartTest, AnUnreachableRendezvousIsNamed) {
  const auto rank = Start(1, 2, {"--group-timeout", "2s"});
  ExpectRefused(*rank, rendezvous_);
}

// It went on waiting for the others until --group-timeout.
TEST_F(GroupStartTest, ARankThatWaitsForOthersStopsAtASignal) {
  const auto leader = Start(0, 2, {"--group-timeout", "1h"});
  ASSERT_TRUE(Eventually(kPatience, [&] {
    return leader->Output().find("meeting 2 ranks") != std::string::npos;
  }));
  leader->Signal(SIGTERM);
  EXPECT_THAT(leader->Wait(kPatience), Optional(0)) << leader->Output();
}

TEST_F(GroupStartTest, AMissingRankIsNamed) {
  const auto leader = Start(0, 2, {"--group-timeout", "2s"});
  ExpectRefused(*leader, "1 came");
}

TEST_F(GroupStartTest, RanksComeInAnyOrder) {
  const auto follower = Start(1, 2);
  ASSERT_FALSE(follower->Wait(absl::Seconds(1)).has_value());
  const std::string ports = NewPath("leader.ports");
  const auto leader = Start(0, 2, {"--port-file", ports});
  EXPECT_TRUE(Eventually(kPatience, [&] { return !FileText(ports).empty(); }))
      << leader->Output();
}

TEST_F(GroupStartTest, GarbageOfStrangersDoesNotKeepTheRanksFromMeeting) {
  const std::string ports = NewPath("leader.ports");
  const auto leader = Start(0, 2, {"--port-file", ports});
  ASSERT_TRUE(Eventually(kPatience, [&] {
    return leader->Output().find("meeting 2 ranks") != std::string::npos;
  }));
  SendAsStranger(rendezvous_, "GET / HTTP/1.1\r\n\r\n");
  const auto follower = Start(1, 2);
  EXPECT_TRUE(Eventually(kPatience, [&] { return !FileText(ports).empty(); }))
      << leader->Output();
}

TEST_F(GroupStartTest, ARankThatIsTakenIsRefused) {
  const auto leader = Start(0, 4, {"--group-timeout", "10s"});
  const auto first = Start(1, 4, {"--group-timeout", "10s"});
  const auto second = Start(1, 4, {"--group-timeout", "10s"});
  ASSERT_TRUE(Eventually(kPatience, [&] {
    return first->Wait(absl::ZeroDuration()).has_value() ||
           second->Wait(absl::ZeroDuration()).has_value();
  }));
  EXPECT_THAT(first->Output() + second->Output(), HasSubstr("rank 1"));
  ExpectRefused(*leader, "2 came");
}

TEST_F(GroupStartTest, ARankBeyondTheGroupIsRefused) {
  const auto rank = Start(2, 2);
  ExpectRefused(*rank, "--rank: expected 0 to 1, got 2");
}

TEST_F(GroupStartTest, AnotherSizeOfTheGroupIsRefused) {
  const auto leader = Start(0, 2, {"--group-timeout", "5s"});
  const auto follower = Start(1, 4, {"--group-timeout", "5s"});
  ExpectRefused(*follower, "4");
  ExpectRefused(*leader, "1 came");
}

TEST_F(GroupStartTest, OtherOptionsAreNamedWithBothValues) {
  const auto leader =
      Start(0, 2, {"--group-timeout", "5s", "--step-tokens", "512"});
  const auto follower =
      Start(1, 2, {"--group-timeout", "5s", "--step-tokens", "256"});
  ExpectRefused(*follower, "--step-tokens");
  EXPECT_THAT(follower->Output(), AllOf(HasSubstr("512"), HasSubstr("256")));
  ExpectRefused(*leader, "--step-tokens");
}

TEST_F(GroupStartTest, ANumberOfRanksThatDoesNotDivideTheHeadsIsRefused) {
  const auto rank = Start(0, 3);
  ExpectRefused(*rank, "1, 2, 4; got 3");
}

TEST_F(GroupStartTest, TooLittleMemoryOnOneRankIsNamedOnAll) {
  const auto leader = Start(0, 2);
  const auto follower = Start(1, 2, {"--kv-memory", "64KiB"});
  for (Process* rank : {leader.get(), follower.get()}) {
    ExpectRefused(*rank, "rank 1 (");
    EXPECT_THAT(rank->Output(), HasSubstr("there is 64.00 KiB"));
  }
}

TEST_F(GroupStartTest, AModelThatOneRankLacksIsNamedOnIt) {
  const auto leader = Start(0, 2, {"--group-timeout", "3s"});
  const auto follower = Start(1, 2, {"--model", "/nowhere"});
  ExpectRefused(*follower, "/nowhere");
  ExpectRefused(*leader, "1 came");
}

TEST_F(GroupStartTest, OtherWeightsOfTheSameModelAreNamedOnAll) {
  const std::string other = NewPath("other");
  std::filesystem::copy(cluster_.model(), other);
  std::string weights = FileText(other + "/model.safetensors");
  for (size_t i = weights.size() / 2; i < weights.size(); ++i) weights[i] ^= 1;
  std::ofstream(other + "/model.safetensors", std::ios::binary) << weights;
  const auto leader = Start(0, 2);
  const auto follower = Start(1, 2, {"--model", other});
  for (Process* rank : {leader.get(), follower.get()}) {
    ExpectRefused(*rank, "has other weights than rank 0");
  }
}

TEST_F(GroupStartTest, AnImageThatCannotBeWrittenIsNamedOnAll) {
  const auto leader = Start(0, 2);
  const auto follower = Start(1, 2, {"--image-dir", "/proc/nowhere"});
  for (Process* rank : {leader.get(), follower.get()}) {
    ExpectRefused(*rank, "rank 1 (");
    EXPECT_THAT(rank->Output(), HasSubstr("/proc/nowhere"));
  }
}

// Takes the image of a directory away, and holds its lock until the descriptor
// is closed: as a process that packs it.
int LockWithoutImage(const std::string& image_dir) {
  int lock = -1;
  for (const auto& entry : std::filesystem::directory_iterator(image_dir)) {
    if (entry.path().extension() == ".lock") {
      lock = open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
    } else {
      std::filesystem::remove(entry.path());
    }
  }
  EXPECT_GE(lock, 0) << image_dir;
  EXPECT_EQ(flock(lock, LOCK_EX), 0);
  return lock;
}

TEST_F(GroupStartTest, ARankThatHangsWhileItLoadsIsMissed) {
  const std::string images = NewPath("images");
  const std::string ports = NewPath("alone.ports");
  {
    const auto alone =
        Start(0, 1, {"--image-dir", images, "--port-file", ports});
    ASSERT_TRUE(
        Eventually(kPatience, [&] { return !FileText(ports).empty(); }));
  }
  const int lock = LockWithoutImage(images);
  const Flags flags = {"--image-dir", images, "--liveness-timeout", "2s"};
  const auto leader = Start(0, 2, flags);
  const auto follower = Start(1, 2, flags);
  ASSERT_TRUE(Eventually(kPatience, [&] {
    return leader->Output().find("memory: ") != std::string::npos;
  })) << leader->Output();
  // The leader waits for the lock, and lives.
  EXPECT_FALSE(
      Eventually(absl::Seconds(4),
                 [&] {
                   return leader->Wait(absl::ZeroDuration()).has_value() ||
                          follower->Wait(absl::ZeroDuration()).has_value();
                 }))
      << leader->Output() << follower->Output();
  leader->Signal(SIGSTOP);
  ExpectRefused(*follower, "rank 0 (");
  EXPECT_THAT(follower->Output(), HasSubstr("no heartbeat for 2.0 s"));
  close(lock);
}

TEST_F(GroupStartTest, APortInUseIsNamedOnAll) {
  const std::string taken = FreeAddress();
  const std::string ports = NewPath("taken.ports");
  const auto holder = Start(0, 1, {"--listen", taken, "--port-file", ports});
  ASSERT_TRUE(Eventually(kPatience, [&] { return !FileText(ports).empty(); }));
  const auto leader = Start(0, 2, {"--listen", taken});
  const auto follower = Start(1, 2);
  ExpectRefused(*leader, taken);
  EXPECT_THAT(follower->Wait(kPatience), Optional(kExitGroupFailed));
  EXPECT_THAT(follower->Output(),
              AllOf(HasSubstr("rank 0 ("), HasSubstr(taken)));
}

}  // namespace
}  // namespace lapidary
