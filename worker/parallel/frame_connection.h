// Frames over a socket:
//
//   frame = "LPDC"  version: uint16  type: uint16  length: uint32  payload
//
// all little-endian.

#ifndef WORKER_PARALLEL_FRAME_CONNECTION_H_
#define WORKER_PARALLEL_FRAME_CONNECTION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/deadline.h"
#include "worker/parallel/tcp_socket.h"

namespace lapidary {

// Of frames and what is in them.  Ranks of one group speak the same.
inline constexpr int kControlVersion = 1;

enum class FrameType : uint16_t {
  kHello = 1,
  kWelcome,    // All hellos.
  kRefusal,    // A code, and why.
  kGather,     // What a rank gives: a code, and a string or a message.
  kGathered,   // What all gave.
  kHeartbeat,  // Step and layer; nothing before there are steps.
  kReport,     // Why a rank cannot go on.
  kFailure,    // Why the group ends.
  kLeave,      // Nothing: the rank goes in good order.
};

struct Frame {
  FrameType type;
  std::string payload;
};

// Of any frame.
inline constexpr int64_t kMaxFrameBytes = int64_t{8} << 20;

// Thread-compatible.
class FrameConnection {
 public:
  // A frame of more than `max_payload` bytes is an error.
  FrameConnection(TcpSocket socket, int64_t max_payload);

  const TcpSocket& socket() const { return socket_; }
  void set_max_payload(int64_t bytes) { max_payload_ = bytes; }

  // Sends as much as the socket takes; the rest waits for a Flush().
  //
  // Errors: UNAVAILABLE if the connection is closed, RESOURCE_EXHAUSTED if
  // kMaxFrameBytes wait already: the other end does not read.
  absl::Status Send(FrameType type, absl::string_view payload);
  absl::Status Flush();
  bool has_unsent() const { return !unsent_.empty(); }
  // The other end sees the connection closed, but may still be heard.
  void EndSending();

  // The next frame, if there is one already.
  //
  // Errors: UNAVAILABLE if the connection is closed, INVALID_ARGUMENT if what
  // came is no frame, FAILED_PRECONDITION if it is of another version.
  absl::StatusOr<std::optional<Frame>> Next();

  // The same, but they wait.  Errors: also DEADLINE_EXCEEDED.
  absl::Status FlushBy(Deadline deadline);
  absl::StatusOr<Frame> NextBy(Deadline deadline);

 private:
  absl::StatusOr<std::optional<Frame>> Parse();
  // Whether there was anything to read.
  absl::StatusOr<bool> Read();

  TcpSocket socket_;
  int64_t max_payload_;
  std::string unsent_;
  std::string unread_;  // At most a frame and a read.
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_FRAME_CONNECTION_H_
