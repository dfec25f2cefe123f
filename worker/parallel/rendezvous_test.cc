#include "worker/parallel/rendezvous.h"

#include <poll.h>
#include <sys/socket.h>

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/frame_connection.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/tcp_socket.h"
#include "worker/parallel/wire.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Channel = absl::StatusOr<std::unique_ptr<ControlChannel>>;

// More than any of these takes.
Deadline Later() { return Deadline::In(absl::Minutes(2)); }

constexpr absl::Duration kSilence = absl::Seconds(2);
constexpr absl::Duration kBeatPeriod = absl::Milliseconds(100);

Hello HelloOf(int rank, int num_ranks) {
  return {.rank = rank,
          .num_ranks = num_ranks,
          .host = absl::StrCat("h", rank),
          .facts = {{"checkpoint", "1f2e"}}};
}

void HearUntilGone(FrameConnection& connection) {
  while (connection.NextBy(Later()).ok()) {
  }
}

// A leader that listens at a port of its own.
class RendezvousTest : public ::testing::Test {
 protected:
  RendezvousTest() : listener_(ListenAt("127.0.0.1:0").value()) {
    address_ = absl::StrCat("127.0.0.1:", listener_.LocalPort());
  }
  ~RendezvousTest() override {
    for (std::thread& thread : threads_) thread.join();
  }

  Channel Lead(int num_ranks, Deadline deadline = Later()) {
    return LeadMeeting(HelloOf(0, num_ranks), std::move(listener_), deadline);
  }
  // The next that comes to the leader's port.
  TcpSocket AcceptOne() {
    std::optional<TcpSocket> socket;
    while (!(socket = AcceptFrom(listener_)).has_value()) {
      pollfd event = {listener_.fd(), POLLIN, 0};
      poll(&event, 1, /*timeout=*/-1);
    }
    return *std::move(socket);
  }
  void InThread(std::function<void()> body) {
    threads_.emplace_back(std::move(body));
  }
  // Comes as `rank`, and runs `body` with its channel.
  void Join(
      const Hello& own, std::function<void(Channel)> body = [](Channel) {}) {
    InThread([this, own, body] { body(JoinMeeting(own, address_, Later())); });
  }
  // A group of `num_ranks`, each with its channel in a thread.
  void Meet(int num_ranks, const std::function<void(ControlChannel&)>& body) {
    for (int rank = 1; rank < num_ranks; ++rank) {
      Join(HelloOf(rank, num_ranks), [body](Channel channel) {
        ASSERT_OK(channel);
        body(**channel);
      });
    }
    Channel channel = Lead(num_ranks);
    ASSERT_OK(channel);
    body(**channel);
  }

  std::string address_;
  TcpSocket listener_;

 private:
  std::vector<std::thread> threads_;
};

TEST_F(RendezvousTest, TellsAllRanksOfAll) {
  Meet(4, [](ControlChannel& channel) {
    ASSERT_EQ(channel.size(), 4);
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(channel.hellos()[rank], HelloOf(rank, 4));
    }
    EXPECT_EQ(channel.local_address(), "127.0.0.1");
  });
}

TEST_F(RendezvousTest, WaitsForALeaderThatStartsLater) {
  const std::string address = address_;
  { const TcpSocket nobody = std::move(listener_); }
  Join(HelloOf(1, 2), [](Channel channel) { EXPECT_OK(channel); });
  EXPECT_OK(MeetRanks(HelloOf(0, 2), address, Later()));
}

TEST_F(RendezvousTest, AGroupOfOneMeetsNobody) {
  const Channel channel = MeetRanks(HelloOf(0, 1), "nowhere", Later());
  ASSERT_OK(channel);
  EXPECT_THAT((*channel)->AllGather("self", Later()),
              IsOkAndHolds(ElementsAre("self")));
}

TEST_F(RendezvousTest, RefusesARankWithOtherFactsAndTakesTheNext) {
  InThread([this] {
    Hello other = HelloOf(1, 2);
    other.facts[0].value = "abcd";
    EXPECT_THAT(JoinMeeting(other, address_, Later()),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("checkpoint differs"),
                               HasSubstr("\"abcd\" on rank 1 (host h1)"),
                               HasSubstr("\"1f2e\" on rank 0 (host h0)"))));
    EXPECT_OK(JoinMeeting(HelloOf(1, 2), address_, Later()));
  });
  EXPECT_OK(Lead(2));
}

TEST_F(RendezvousTest, RefusesARankThatIsHereAlready) {
  InThread([this] {
    // Stays until the other has been refused.
    FrameConnection first(ConnectTo(address_, Later()).value(), kMaxFrameBytes);
    ASSERT_OK(first.Send(FrameType::kHello, EncodeHello(HelloOf(1, 3))));
    EXPECT_THAT(JoinMeeting(HelloOf(1, 3), address_, Later()),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("rank 1 (host h1) is here already")));
    EXPECT_OK(JoinMeeting(HelloOf(2, 3), address_, Later()));
    EXPECT_OK(first.NextBy(Later()));
  });
  EXPECT_OK(Lead(3));
}

TEST_F(RendezvousTest, TakesARankThatComesAgain) {
  InThread([this] {
    {
      FrameConnection first(ConnectTo(address_, Later()).value(),
                            kMaxFrameBytes);
      ASSERT_OK(first.Send(FrameType::kHello, EncodeHello(HelloOf(1, 3))));
    }
    std::thread again(
        [this] { EXPECT_OK(JoinMeeting(HelloOf(1, 3), address_, Later())); });
    EXPECT_OK(JoinMeeting(HelloOf(2, 3), address_, Later()));
    again.join();
  });
  EXPECT_OK(Lead(3));
}

TEST_F(RendezvousTest, LetsNoStrangerInItsWay) {
  InThread([this] {
    const TcpSocket silent = ConnectTo(address_, Later()).value();
    const TcpSocket garbage = ConnectTo(address_, Later()).value();
    const std::string request = "GET / HTTP/1.1\r\n\r\n";
    ASSERT_GT(send(garbage.fd(), request.data(), request.size(), 0), 0);
    FrameConnection other(ConnectTo(address_, Later()).value(), kMaxFrameBytes);
    ASSERT_OK(other.Send(FrameType::kHello, "no hello"));
    const auto answer = other.NextBy(Later());
    ASSERT_OK(answer);
    EXPECT_EQ(answer->type, FrameType::kRefusal);
    EXPECT_OK(JoinMeeting(HelloOf(1, 2), address_, Later()));
  });
  EXPECT_OK(Lead(2));
}

TEST_F(RendezvousTest, ClosesStrangersBeyondABound) {
  InThread([this] {
    std::vector<TcpSocket> strangers;
    for (int i = 0; i < kMaxStrangers; ++i) {
      strangers.push_back(ConnectTo(address_, Later()).value());
    }
    FrameConnection one_more(ConnectTo(address_, Later()).value(),
                             kMaxFrameBytes);
    EXPECT_THAT(one_more.NextBy(Later()),
                StatusIs(absl::StatusCode::kUnavailable));
    strangers.clear();
    EXPECT_OK(JoinMeeting(HelloOf(1, 2), address_, Later()));
  });
  EXPECT_OK(Lead(2));
}

TEST_F(RendezvousTest, SaysWhoIsMissingAtTheDeadline) {
  Join(HelloOf(1, 4), [](Channel channel) {
    EXPECT_THAT(channel, StatusIs(absl::StatusCode::kDeadlineExceeded,
                                  HasSubstr("needs 4 ranks")));
  });
  Join(HelloOf(2, 2));  // Of another group.
  const Channel channel = Lead(4, Deadline::In(absl::Seconds(2)));
  EXPECT_THAT(channel,
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("needs 4 ranks, 2 came; missing: 2, 3"),
                             HasSubstr("refused: number of ranks differs"))));
}

TEST_F(RendezvousTest, SaysThatNobodyListens) {
  { const TcpSocket nobody = std::move(listener_); }
  EXPECT_THAT(
      JoinMeeting(HelloOf(1, 2), address_, Deadline::In(absl::ZeroDuration())),
      StatusIs(absl::StatusCode::kDeadlineExceeded,
               AllOf(HasSubstr("rank 0 at 127.0.0.1:"), HasSubstr("refused"))));
}

TEST_F(RendezvousTest, NamesTheAddressWhereNoLeaderListens) {
  Join(HelloOf(1, 2), [](Channel channel) {
    EXPECT_THAT(channel, StatusIs(absl::StatusCode::kInvalidArgument,
                                  AllOf(HasSubstr("rank 0 at 127.0.0.1:"),
                                        HasSubstr("needs a frame"))));
  });
  FrameConnection follower(AcceptOne(), kMaxFrameBytes);
  ASSERT_OK(follower.NextBy(Later()));
  const std::string answer = "HTTP/1.0 400 Bad Request";
  ASSERT_EQ(send(follower.socket().fd(), answer.data(), answer.size(), 0),
            static_cast<ssize_t>(answer.size()));
  EXPECT_THAT(follower.NextBy(Later()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(RendezvousTest, RefusesAWelcomeOfOtherRanks) {
  Join(HelloOf(1, 2), [](Channel channel) {
    EXPECT_THAT(channel, StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("not of all ranks")));
  });
  FrameConnection follower(AcceptOne(), kMaxFrameBytes);
  ASSERT_OK(follower.NextBy(Later()));
  ASSERT_OK(follower.Send(
      FrameType::kWelcome,
      EncodeList({EncodeHello(HelloOf(0, 2)), EncodeHello(HelloOf(1000, 2))})));
  EXPECT_THAT(follower.NextBy(Later()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(RendezvousTest, RefusesRanksAndAddressesThatAreNone) {
  for (const Hello& own : {HelloOf(4, 4), HelloOf(-1, 4), HelloOf(0, 0),
                           HelloOf(0, kMaxRanks + 1)}) {
    EXPECT_THAT(MeetRanks(own, address_, Later()),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  for (const char* address : {"", "host", "host:", "host:x", ":1", "h:70000"}) {
    EXPECT_THAT(MeetRanks(HelloOf(0, 2), address, Later()),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("needs HOST:PORT")));
    EXPECT_THAT(MeetRanks(HelloOf(1, 2), address, Later()),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST_F(RendezvousTest, GathersWhatRanksGive) {
  Meet(4, [](ControlChannel& channel) {
    const std::string large(ControlChannel::kMaxGatherBytes, 'x');
    for (int i = 0; i < 3; ++i) {
      const auto name = [&](int rank) { return absl::StrCat(rank, large); };
      const std::string own = name(channel.rank()).substr(0, large.size());
      const auto all = channel.AllGather(own, Later());
      ASSERT_OK(all);
      for (int rank = 0; rank < 4; ++rank) {
        EXPECT_EQ((*all)[rank], name(rank).substr(0, large.size()));
      }
    }
  });
}

TEST_F(RendezvousTest, GivesTheErrorOfARankToAll) {
  Meet(4, [](ControlChannel& channel) {
    absl::StatusOr<std::string> own = "fine";
    if (channel.rank() == 2) own = absl::ResourceExhaustedError("no memory");
    EXPECT_THAT(channel.AllGather(own, Later()),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         "rank 2 (host h2): no memory"));
  });
}

TEST_F(RendezvousTest, GivesTheErrorOfTheLeaderToAll) {
  Meet(3, [](ControlChannel& channel) {
    absl::StatusOr<std::string> own = "fine";
    if (channel.rank() == 0) own = absl::NotFoundError("no such model");
    EXPECT_THAT(channel.AllGather(own, Later()),
                StatusIs(absl::StatusCode::kNotFound,
                         "rank 0 (host h0): no such model"));
  });
}

TEST_F(RendezvousTest, NamesARankThatIsGone) {
  Meet(3, [](ControlChannel& channel) {
    if (channel.rank() == 1) return;
    EXPECT_THAT(channel.AllGather("here", Later()),
                StatusIs(absl::StatusCode::kUnavailable,
                         "rank 1 (host h1): its connection closed"));
  });
}

TEST_F(RendezvousTest, NamesARankThatIsLate) {
  Meet(3, [](ControlChannel& channel) {
    if (channel.rank() == 2) {
      HearUntilGone(*channel.connection(0));  // The leader has given up on it.
      return;
    }
    const Deadline deadline =
        channel.rank() == 0 ? Deadline::In(absl::Seconds(1)) : Later();
    EXPECT_THAT(channel.AllGather("here", deadline),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         "rank 2 (host h2): it said nothing in time"));
  });
}

// As a rank that computes before it gives: beats, `num_beats` times.
void BeatFor(ControlChannel& channel, int num_beats) {
  for (int i = 0; i < num_beats; ++i) {
    channel.Beat();
    absl::SleepFor(kBeatPeriod);
  }
}

TEST_F(RendezvousTest, WaitsForRanksThatLive) {
  Meet(3, [](ControlChannel& channel) {
    for (const int slow : {0, 2}) {
      if (channel.rank() == slow) BeatFor(channel, /*num_beats=*/30);
      EXPECT_OK(channel.AllGather("here", Later(), kSilence));
    }
  });
}

TEST_F(RendezvousTest, NamesARankThatIsSilent) {
  Meet(3, [](ControlChannel& channel) {
    if (channel.rank() == 2) {
      BeatFor(channel, /*num_beats=*/2);
      HearUntilGone(*channel.connection(0));
      return;
    }
    EXPECT_THAT(channel.AllGather("here", Later(), kSilence),
                StatusIs(absl::StatusCode::kUnavailable,
                         "rank 2 (host h2): no heartbeat for 2.0 s"));
  });
}

TEST_F(RendezvousTest, NamesALeaderThatIsSilent) {
  Meet(2, [](ControlChannel& channel) {
    if (channel.rank() == 0) {
      BeatFor(channel, /*num_beats=*/2);
      HearUntilGone(*channel.connection(1));
      return;
    }
    EXPECT_THAT(channel.AllGather("here", Later(), kSilence),
                StatusIs(absl::StatusCode::kUnavailable,
                         "rank 0 (host h0): no heartbeat for 2.0 s"));
  });
}

// It sends beats to a leader that has gone, before it asks why.
TEST_F(RendezvousTest, TellsARankThatStillComputesWhyTheLeaderHasGone) {
  std::promise<void> gone;
  Join(HelloOf(1, 2), [is_gone = gone.get_future().share()](Channel channel) {
    ASSERT_OK(channel);
    is_gone.wait();
    for (int i = 0; i < 5; ++i) (*channel)->Beat();
    EXPECT_THAT((*channel)->AllGather("here", Later(), kSilence),
                StatusIs(absl::StatusCode::kNotFound,
                         "rank 0 (host h0): no such model"));
  });
  {
    const Channel channel = Lead(2);
    ASSERT_OK(channel);
    EXPECT_THAT(
        (*channel)->AllGather(absl::NotFoundError("no such model"), Later()),
        StatusIs(absl::StatusCode::kNotFound, HasSubstr("model")));
  }
  gone.set_value();
}

TEST_F(RendezvousTest, NamesARankThatIsGoneAfterItGave) {
  Meet(3, [](ControlChannel& channel) {
    switch (channel.rank()) {
      case 0:
        EXPECT_THAT(channel.AllGather("here", Later()),
                    StatusIs(absl::StatusCode::kUnavailable,
                             HasSubstr("rank 1 (host h1): its connection")));
        return;
      case 1:
        ASSERT_OK(channel.connection(0)->Send(
            FrameType::kGather, EncodeResult(std::string("here"))));
        return;
      default:  // Gives nothing until the leader has given up.
        HearUntilGone(*channel.connection(0));
    }
  });
}

TEST_F(RendezvousTest, NamesARankThatSendsGarbage) {
  Meet(3, [](ControlChannel& channel) {
    if (channel.rank() == 1) {
      ASSERT_OK(channel.connection(0)->Send(FrameType::kGather, "garbage"));
      HearUntilGone(*channel.connection(0));
      return;
    }
    EXPECT_THAT(channel.AllGather("here", Later()),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("rank 1 (host h1): it sent a malformed")));
  });
}

}  // namespace
}  // namespace lapidary
