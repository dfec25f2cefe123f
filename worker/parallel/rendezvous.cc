#include "worker/parallel/rendezvous.h"

#include <poll.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/frame_connection.h"
#include "worker/parallel/wire.h"

namespace lapidary {
namespace {

// How long a rank waits before it tries the leader's address again.
constexpr int kRetryMilliseconds = 100;
// What a rank waits for the leader's explanation after its own deadline.
constexpr absl::Duration kExplanationGrace = absl::Seconds(1);
// Reasons that a failed meeting repeats.
constexpr int kMaxReasons = 8;

void Pause() { poll(nullptr, 0, kRetryMilliseconds); }

bool IsLoopback(const std::string& address) {
  return absl::StartsWith(address, "127.") || address == "::1";
}

absl::Status CheckOwn(const Hello& own) {
  if (own.num_ranks < 1 || own.num_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs 1 to ", kMaxRanks, " ranks, got ", own.num_ranks));
  }
  if (own.rank < 0 || own.rank >= own.num_ranks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "needs a rank from 0 to ", own.num_ranks - 1, ", got ", own.rank));
  }
  return DecodeHello(EncodeHello(own)).status();
}

// The leader's side.
class Meeting {
 public:
  Meeting(const Hello& own, TcpSocket listener, Deadline deadline)
      : own_(own),
        deadline_(deadline),
        listener_(std::move(listener)),
        members_(own.num_ranks),
        hellos_(own.num_ranks) {
    hellos_[0] = own;
  }

  absl::StatusOr<std::unique_ptr<ControlChannel>> Run();

 private:
  struct Stranger {
    std::unique_ptr<FrameConnection> connection;
    Deadline deadline;  // To say who it is.
  };

  bool Complete() const {
    return std::count(members_.begin(), members_.end(), nullptr) == 1;
  }
  void WaitForEvents() const;
  void Accept();
  void HearStrangers();
  // Whether the stranger has said something, or will not.
  bool Hear(Stranger& stranger);
  void Judge(const Frame& frame, std::unique_ptr<FrameConnection> connection);
  void Refuse(const absl::Status& reason, FrameConnection& connection);
  void MissMembers();
  bool HasMember(int rank);
  absl::Status EndTooFew();
  absl::Status WelcomeAll();
  std::string LocalAddress() const;

  const Hello own_;
  const Deadline deadline_;
  const TcpSocket listener_;
  std::vector<Stranger> strangers_;
  std::vector<std::unique_ptr<FrameConnection>> members_;  // By rank; [0] null.
  std::vector<Hello> hellos_;
  std::vector<std::string> refusals_;
};

absl::StatusOr<std::unique_ptr<ControlChannel>> Meeting::Run() {
  while (!Complete()) {
    if (deadline_.has_passed()) return EndTooFew();
    WaitForEvents();
    Accept();
    HearStrangers();
    MissMembers();
  }
  RETURN_IF_ERROR(WelcomeAll());
  std::string local_address = LocalAddress();
  return std::make_unique<ControlChannel>(
      0, std::move(hellos_), std::move(local_address), std::move(members_));
}

void Meeting::WaitForEvents() const {
  std::vector<pollfd> events = {{listener_.fd(), POLLIN, 0}};
  Deadline until = deadline_;
  for (const Stranger& stranger : strangers_) {
    events.push_back({stranger.connection->socket().fd(), POLLIN, 0});
    until = std::min(until, stranger.deadline);
  }
  for (const auto& member : members_) {
    if (member != nullptr) events.push_back({member->socket().fd(), POLLIN, 0});
  }
  poll(events.data(), events.size(), until.PollTimeout());
}

void Meeting::Accept() {
  while (std::optional<TcpSocket> socket = AcceptFrom(listener_)) {
    if (strangers_.size() >= kMaxStrangers) {
      LOG(WARNING) << "closes a connection from " << socket->PeerAddress()
                   << ": " << kMaxStrangers << " have not said who they are";
      continue;
    }
    strangers_.push_back(
        {std::make_unique<FrameConnection>(*std::move(socket), kMaxHelloBytes),
         Deadline::In(kHelloTimeout)});
  }
}

void Meeting::HearStrangers() {
  std::erase_if(strangers_,
                [this](Stranger& stranger) { return Hear(stranger); });
}

bool Meeting::Hear(Stranger& stranger) {
  absl::StatusOr<std::optional<Frame>> frame = stranger.connection->Next();
  if (frame.ok() && frame->has_value()) {
    Judge(**frame, std::move(stranger.connection));
    return true;
  }
  absl::Status reason = frame.status();
  if (reason.ok() && !stranger.deadline.has_passed()) return false;
  if (reason.ok()) {
    reason = absl::DeadlineExceededError("it has not said who it is");
  }
  Refuse(reason, *stranger.connection);
  return true;
}

void Meeting::Judge(const Frame& frame,
                    std::unique_ptr<FrameConnection> connection) {
  absl::StatusOr<Hello> hello = absl::InvalidArgumentError("it said no hello");
  if (frame.type == FrameType::kHello) hello = DecodeHello(frame.payload);
  absl::Status fits = hello.ok() ? CheckFits(own_, *hello) : hello.status();
  if (fits.ok() && HasMember(hello->rank)) {
    fits = absl::FailedPreconditionError(absl::StrCat(
        NameOf(*hello), " is here already: ", NameOf(hellos_[hello->rank]),
        " from ", members_[hello->rank]->socket().PeerAddress()));
  }
  if (!fits.ok()) return Refuse(fits, *connection);
  LOG(INFO) << NameOf(*hello) << " has come";
  members_[hello->rank] = std::move(connection);
  hellos_[hello->rank] = *std::move(hello);
}

void Meeting::Refuse(const absl::Status& reason, FrameConnection& connection) {
  LOG(WARNING) << "refuses " << connection.socket().PeerAddress() << ": "
               << reason.message();
  if (refusals_.size() < kMaxReasons) {
    refusals_.emplace_back(reason.message());
  }
  // It may be gone, or not understand.
  connection.Send(FrameType::kRefusal, EncodeResult(reason)).IgnoreError();
}

void Meeting::MissMembers() {
  for (int rank = 1; rank < own_.num_ranks; ++rank) HasMember(rank);
}

// A member has nothing to say yet; one that goes may come again.
bool Meeting::HasMember(int rank) {
  if (members_[rank] == nullptr) return false;
  const absl::StatusOr<std::optional<Frame>> frame = members_[rank]->Next();
  if (frame.ok() && !frame->has_value()) return true;
  LOG(WARNING) << NameOf(hellos_[rank]) << " has gone again: "
               << (frame.ok() ? "it sent a frame that was not due"
                              : frame.status().message());
  members_[rank] = nullptr;
  return false;
}

absl::Status Meeting::EndTooFew() {
  std::vector<std::string> missing;
  for (size_t rank = 1; rank < members_.size(); ++rank) {
    if (members_[rank] == nullptr) missing.push_back(absl::StrCat(rank));
  }
  std::string message = absl::StrCat(
      "needs ", own_.num_ranks, " ranks, ", own_.num_ranks - missing.size(),
      " came; missing: ", absl::StrJoin(missing, ", "));
  if (!refusals_.empty()) {
    absl::StrAppend(&message, "; refused: ", absl::StrJoin(refusals_, "; "));
  }
  const absl::Status status = absl::DeadlineExceededError(message);
  for (const auto& member : members_) {
    if (member == nullptr) continue;
    member->Send(FrameType::kRefusal, EncodeResult(status)).IgnoreError();
  }
  return status;
}

absl::Status Meeting::WelcomeAll() {
  std::vector<std::string> encoded;
  for (const Hello& hello : hellos_) encoded.push_back(EncodeHello(hello));
  const std::string payload = EncodeList(encoded);
  for (size_t rank = 1; rank < members_.size(); ++rank) {
    absl::Status sent = members_[rank]->Send(FrameType::kWelcome, payload);
    if (sent.ok()) sent = members_[rank]->FlushBy(deadline_);
    if (!sent.ok()) {
      return {sent.code(),
              absl::StrCat(NameOf(hellos_[rank]), ": ", sent.message())};
    }
  }
  return absl::OkStatus();
}

// Ranks of this machine may have come over the loopback interface, by which
// those of others cannot.
std::string Meeting::LocalAddress() const {
  std::string address;
  for (const auto& member : members_) {
    if (member == nullptr) continue;
    address = member->socket().LocalAddress();
    if (!IsLoopback(address)) break;
  }
  return address;
}

// Another rank's side of one connection.  UNAVAILABLE if it is worth another
// try.
absl::StatusOr<std::unique_ptr<ControlChannel>> JoinOnce(
    const Hello& own, const std::string& address, Deadline deadline) {
  ASSIGN_OR_RETURN(TcpSocket socket, ConnectTo(address, deadline));
  std::string local_address = socket.LocalAddress();
  auto leader =
      std::make_unique<FrameConnection>(std::move(socket), kMaxFrameBytes);
  RETURN_IF_ERROR(leader->Send(FrameType::kHello, EncodeHello(own)));
  RETURN_IF_ERROR(leader->FlushBy(deadline));
  ASSIGN_OR_RETURN(const Frame frame,
                   leader->NextBy(deadline + kExplanationGrace));
  if (frame.type == FrameType::kRefusal) {
    absl::StatusOr<std::string> reason;
    RETURN_IF_ERROR(DecodeResult(frame.payload, reason));
    return absl::Status(
        reason.status().code(),
        absl::StrCat("it refuses: ", reason.status().message()));
  }
  if (frame.type != FrameType::kWelcome) {
    return absl::InvalidArgumentError("it sent no welcome");
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> encoded,
                   DecodeList(frame.payload, own.num_ranks));
  std::vector<Hello> hellos;
  for (const std::string& bytes : encoded) {
    ASSIGN_OR_RETURN(hellos.emplace_back(), DecodeHello(bytes));
    if (hellos.back().rank != static_cast<int>(hellos.size()) - 1) {
      return absl::InvalidArgumentError("its welcome is not of all ranks");
    }
  }
  std::vector<std::unique_ptr<FrameConnection>> connections(own.num_ranks);
  connections[0] = std::move(leader);
  return std::make_unique<ControlChannel>(own.rank, std::move(hellos),
                                          std::move(local_address),
                                          std::move(connections));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlChannel>> MeetRanks(
    const Hello& own, const std::string& address, Deadline deadline) {
  RETURN_IF_ERROR(CheckOwn(own));
  if (own.num_ranks == 1) {
    return std::make_unique<ControlChannel>(
        0, std::vector<Hello>{own}, "",
        std::vector<std::unique_ptr<FrameConnection>>(1));
  }
  if (own.rank > 0) return JoinMeeting(own, address, deadline);
  // The name may not be known yet, nor the port be free.
  absl::StatusOr<TcpSocket> listener = ListenAt(address);
  while (!listener.ok() && absl::IsUnavailable(listener.status()) &&
         !deadline.has_passed()) {
    Pause();
    listener = ListenAt(address);
  }
  RETURN_IF_ERROR(listener.status());
  return LeadMeeting(own, *std::move(listener), deadline);
}

absl::StatusOr<std::unique_ptr<ControlChannel>> LeadMeeting(const Hello& own,
                                                            TcpSocket listener,
                                                            Deadline deadline) {
  CHECK_EQ(own.rank, 0);
  return Meeting(own, std::move(listener), deadline).Run();
}

absl::StatusOr<std::unique_ptr<ControlChannel>> JoinMeeting(
    const Hello& own, const std::string& address, Deadline deadline) {
  while (true) {
    absl::StatusOr<std::unique_ptr<ControlChannel>> channel =
        JoinOnce(own, address, deadline);
    if (channel.ok()) return channel;
    absl::StatusCode code = channel.status().code();
    if (code == absl::StatusCode::kUnavailable) {
      if (!deadline.has_passed()) {
        Pause();
        continue;
      }
      code = absl::StatusCode::kDeadlineExceeded;
    }
    return absl::Status(code, absl::StrCat("rank 0 at ", address, ": ",
                                           channel.status().message()));
  }
}

}  // namespace lapidary
