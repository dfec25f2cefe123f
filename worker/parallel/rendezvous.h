// How the processes of a group find each other, in any order of their starts.
//
//   rank 0      listens at HOST:PORT
//   others      connect, again and again until it answers, and say Hello
//   rank 0      checks each Hello; once all ranks are there, tells all of all

#ifndef WORKER_PARALLEL_RENDEZVOUS_H_
#define WORKER_PARALLEL_RENDEZVOUS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "worker/parallel/control_channel.h"
#include "worker/parallel/hello.h"
#include "worker/parallel/tcp_socket.h"

namespace lapidary {

// Connections that have not said who they are; one more is closed at once.
inline constexpr int kMaxStrangers = 64;
// What a connection has to say it.
inline constexpr absl::Duration kHelloTimeout = absl::Seconds(5);

// Meets the other ranks of own.num_ranks at `address`, rank 0's "host:port".  A
// rank that does not fit is refused, with the reason, and the others go on
// waiting for one that does; so are strangers and garbage.
//
// Errors:
//   INVALID_ARGUMENT     `address` is no "host:port", `own` beyond its bounds,
//                        or who listens there is no leader.
//   FAILED_PRECONDITION  This rank is refused, with the leader's reason.
//   DEADLINE_EXCEEDED    Not all ranks came in time: who did, and why others
//                        were refused.
absl::StatusOr<std::unique_ptr<ControlChannel>> MeetRanks(
    const Hello& own, const std::string& address, Deadline deadline);

// Rank 0's part, at a port that is bound already (tests bind port 0).
absl::StatusOr<std::unique_ptr<ControlChannel>> LeadMeeting(const Hello& own,
                                                            TcpSocket listener,
                                                            Deadline deadline);

// The others' part.
absl::StatusOr<std::unique_ptr<ControlChannel>> JoinMeeting(
    const Hello& own, const std::string& address, Deadline deadline);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_RENDEZVOUS_H_
