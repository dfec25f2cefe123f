// Sockets of a group's control connections.

#ifndef WORKER_PARALLEL_TCP_SOCKET_H_
#define WORKER_PARALLEL_TCP_SOCKET_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/deadline.h"

namespace lapidary {

// Owns a socket, which never blocks.
class TcpSocket {
 public:
  // Takes `fd` over.
  explicit TcpSocket(int fd);
  ~TcpSocket();

  TcpSocket(TcpSocket&& other) noexcept;
  TcpSocket& operator=(TcpSocket&& other) noexcept;

  int fd() const { return fd_; }

  // Of this end, numeric: "10.0.0.1".
  std::string LocalAddress() const;
  int LocalPort() const;
  // Of the other end: "10.0.0.2:50000".
  std::string PeerAddress() const;

 private:
  int fd_;  // -1 once moved from.
};

// Listens at `address`, "host:port" with a name or a number; port 0 is any that
// is free.
//
// Errors: INVALID_ARGUMENT if it is no such thing, UNAVAILABLE if the name is
// not found, or the port is taken.
absl::StatusOr<TcpSocket> ListenAt(const std::string& address);

// A connection that waits, if there is one.
std::optional<TcpSocket> AcceptFrom(const TcpSocket& listener);

// Connects to `address`.
//
// Errors: as ListenAt(); UNAVAILABLE if nobody listens, DEADLINE_EXCEEDED.
absl::StatusOr<TcpSocket> ConnectTo(const std::string& address,
                                    Deadline deadline);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_TCP_SOCKET_H_
