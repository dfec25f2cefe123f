#include "worker/parallel/frame_connection.h"

#include <sys/socket.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

constexpr int kMaxPayload = 1000;

class FrameConnectionTest : public ::testing::Test {
 protected:
  FrameConnectionTest() : FrameConnectionTest(Pair()) {}

  // What another program would send.
  void SendRaw(const std::string& bytes) {
    ASSERT_EQ(send(raw_fd_, bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }

  FrameConnection ours_;
  std::optional<FrameConnection> theirs_;
  const int raw_fd_;

 private:
  static std::pair<int, int> Pair() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    return {ends[0], ends[1]};
  }
  explicit FrameConnectionTest(std::pair<int, int> ends)
      : ours_(TcpSocket(ends.first), kMaxPayload),
        theirs_(FrameConnection(TcpSocket(ends.second), kMaxFrameBytes)),
        raw_fd_(ends.second) {}
};

TEST_F(FrameConnectionTest, BringsFramesInTheirOrder) {
  ASSERT_OK(theirs_->Send(FrameType::kGather, "one"));
  ASSERT_OK(theirs_->Send(FrameType::kLeave, ""));
  const auto first = ours_.NextBy(Deadline::Never());
  ASSERT_OK(first);
  EXPECT_EQ(first->type, FrameType::kGather);
  EXPECT_EQ(first->payload, "one");
  const auto second = ours_.Next();
  ASSERT_OK(second);
  ASSERT_TRUE(second->has_value());
  EXPECT_EQ((*second)->type, FrameType::kLeave);
}

TEST_F(FrameConnectionTest, WaitsForTheRestOfAFrame) {
  SendRaw(std::string("LPDC\1\0\4\0\3\0\0\0o", 13));
  const auto early = ours_.Next();
  ASSERT_OK(early);
  EXPECT_FALSE(early->has_value());
  SendRaw("ne");
  const auto frame = ours_.Next();
  ASSERT_OK(frame);
  ASSERT_TRUE(frame->has_value());
  EXPECT_EQ((*frame)->payload, "one");
}

TEST_F(FrameConnectionTest, SendsMoreThanTheSocketTakes) {
  ours_.set_max_payload(kMaxFrameBytes);
  const std::string payload(kMaxFrameBytes, 'x');
  ASSERT_OK(theirs_->Send(FrameType::kGather, payload));
  EXPECT_TRUE(theirs_->has_unsent());
  std::optional<Frame> frame;
  while (!frame.has_value()) {
    ASSERT_OK(theirs_->Flush());
    auto next = ours_.Next();
    ASSERT_OK(next);
    frame = *std::move(next);
  }
  EXPECT_EQ(frame->payload, payload);
}

TEST_F(FrameConnectionTest, BoundsWhatWaitsForAnEndThatDoesNotRead) {
  const std::string payload(kMaxFrameBytes, 'x');
  ASSERT_OK(theirs_->Send(FrameType::kGather, payload));
  ASSERT_OK(theirs_->Send(FrameType::kGather, payload));
  EXPECT_THAT(theirs_->Send(FrameType::kGather, "x"),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(FrameConnectionTest, GivesUpAtADeadline) {
  EXPECT_THAT(ours_.NextBy(Deadline::In(absl::ZeroDuration())),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(FrameConnectionTest, BringsWhatWasSentBeforeTheEnd) {
  ASSERT_OK(theirs_->Send(FrameType::kLeave, ""));
  theirs_.reset();
  const auto frame = ours_.Next();
  ASSERT_OK(frame);
  EXPECT_TRUE(frame->has_value());
  EXPECT_THAT(ours_.Next(), StatusIs(absl::StatusCode::kUnavailable,
                                     HasSubstr("connection closed")));
  EXPECT_THAT(ours_.Send(FrameType::kLeave, ""),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(FrameConnectionTest, RefusesAnotherProtocol) {
  SendRaw("GET / HTTP/1.1\r\n\r\n");
  EXPECT_THAT(ours_.Next(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("got \"GET / HTTP/1")));
}

TEST_F(FrameConnectionTest, RefusesAnotherVersion) {
  SendRaw(std::string("LPDC\7\0\1\0\0\0\0\0", 12));
  EXPECT_THAT(ours_.Next(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     HasSubstr("it speaks 7")));
}

TEST_F(FrameConnectionTest, RefusesAnUnknownType) {
  SendRaw(std::string("LPDC\1\0\100\0\0\0\0\0", 12));
  EXPECT_THAT(ours_.Next(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("type of frame: 64")));
}

TEST_F(FrameConnectionTest, RefusesAFrameBeyondItsBound) {
  SendRaw(std::string("LPDC\1\0\1\0\377\377\377\377", 12));
  EXPECT_THAT(ours_.Next(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("it has 4294967295")));
}

}  // namespace
}  // namespace lapidary
