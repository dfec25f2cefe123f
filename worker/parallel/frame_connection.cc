#include "worker/parallel/frame_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr char kMagic[] = {'L', 'P', 'D', 'C'};
constexpr int kReadBytes = 64 << 10;

struct Header {
  char magic[sizeof(kMagic)];
  uint16_t version;
  uint16_t type;
  uint32_t length;
};
static_assert(sizeof(Header) == 12);

absl::Status Closed(absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("its connection closed", why));
}

absl::Status SocketError() {
  return Closed(absl::StrCat(": ", std::strerror(errno)));
}

bool WouldBlock() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

// Of a frame's beginning, whatever is there of it.
absl::Status CheckHeader(absl::string_view bytes, int64_t max_payload) {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a frame, got \"",
                     absl::CHexEscape(bytes.substr(0, sizeof(header))), "\""));
  }
  if (header.version != kControlVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("needs version ", kControlVersion,
                     " of the control protocol, it speaks ", header.version));
  }
  if (header.type < static_cast<int>(FrameType::kHello) ||
      header.type > static_cast<int>(FrameType::kLeave)) {
    return absl::InvalidArgumentError(
        absl::StrCat("no type of frame: ", header.type));
  }
  if (header.length > max_payload) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a frame of at most ", max_payload,
                     " bytes, it has ", header.length));
  }
  return absl::OkStatus();
}

absl::Status WaitFor(const TcpSocket& socket, short events, Deadline deadline) {
  pollfd event = {socket.fd(), events, 0};
  if (poll(&event, 1, deadline.PollTimeout()) > 0 || !deadline.has_passed()) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError("it did not answer in time");
}

}  // namespace

FrameConnection::FrameConnection(TcpSocket socket, int64_t max_payload)
    : socket_(std::move(socket)), max_payload_(max_payload) {
  const int on = 1;
  // Not of a socket pair.
  if (setsockopt(socket_.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) !=
      0) {
    PCHECK(errno == EOPNOTSUPP || errno == EINVAL);
  }
}

absl::Status FrameConnection::Send(FrameType type, absl::string_view payload) {
  CHECK_LE(static_cast<int64_t>(payload.size()), kMaxFrameBytes);
  if (static_cast<int64_t>(unsent_.size()) > kMaxFrameBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(unsent_.size(), " bytes wait for it to read"));
  }
  Header header = {.magic = {},
                   .version = kControlVersion,
                   .type = static_cast<uint16_t>(type),
                   .length = static_cast<uint32_t>(payload.size())};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  unsent_.append(reinterpret_cast<const char*>(&header), sizeof(header));
  unsent_.append(payload.data(), payload.size());
  return Flush();
}

absl::Status FrameConnection::Flush() {
  size_t sent = 0;
  while (sent < unsent_.size()) {
    const ssize_t count = send(socket_.fd(), unsent_.data() + sent,
                               unsent_.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && !WouldBlock()) return SocketError();
    if (count <= 0) break;
    sent += count;
  }
  unsent_.erase(0, sent);
  return absl::OkStatus();
}

void FrameConnection::EndSending() { shutdown(socket_.fd(), SHUT_WR); }

absl::Status FrameConnection::FlushBy(Deadline deadline) {
  RETURN_IF_ERROR(Flush());
  while (has_unsent()) {
    RETURN_IF_ERROR(WaitFor(socket_, POLLOUT, deadline));
    RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Frame>> FrameConnection::Next() {
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Frame> frame, Parse());
    if (frame.has_value()) return frame;
    ASSIGN_OR_RETURN(const bool more, Read());
    if (!more) return std::nullopt;
  }
}

absl::StatusOr<Frame> FrameConnection::NextBy(Deadline deadline) {
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Frame> frame, Next());
    if (frame.has_value()) return *std::move(frame);
    RETURN_IF_ERROR(WaitFor(socket_, POLLIN, deadline));
  }
}

absl::StatusOr<std::optional<Frame>> FrameConnection::Parse() {
  if (unread_.size() < sizeof(Header)) return std::nullopt;
  RETURN_IF_ERROR(CheckHeader(unread_, max_payload_));
  Header header;
  std::memcpy(&header, unread_.data(), sizeof(header));
  if (unread_.size() < sizeof(header) + header.length) return std::nullopt;
  Frame frame = {.type = static_cast<FrameType>(header.type),
                 .payload = unread_.substr(sizeof(header), header.length)};
  unread_.erase(0, sizeof(header) + header.length);
  return frame;
}

absl::StatusOr<bool> FrameConnection::Read() {
  char buffer[kReadBytes];
  const ssize_t count = recv(socket_.fd(), buffer, sizeof(buffer), 0);
  if (count > 0) {
    unread_.append(buffer, count);
    return true;
  }
  if (count == 0) return Closed("");
  if (WouldBlock()) return false;
  return SocketError();
}

}  // namespace lapidary
