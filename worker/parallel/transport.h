// How messages get from a rank to another.

#ifndef WORKER_PARALLEL_TRANSPORT_H_
#define WORKER_PARALLEL_TRANSPORT_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "common/deadline.h"

namespace lapidary {

// One rank's messages to and from the others.  An exchange has a number, the
// same on all ranks, and in each direction at most one message between two
// ranks, whose size both know.
//
// Owned by the rank's engine thread.
//
// Errors of all operations: UNAVAILABLE if a rank is gone, DEADLINE_EXCEEDED;
// each names the rank where it is known.  Nothing but Finish() and the
// destructor may be called after one.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // `bytes` must stay until Finish(exchange) returns.
  //
  // REQUIRES: `bytes` is not empty.
  virtual absl::Status StartSend(int to, int64_t exchange,
                                 std::span<const char> bytes) = 0;
  virtual absl::Status StartReceive(int from, int64_t exchange,
                                    std::span<char> bytes) = 0;

  // Waits for all messages of `exchange`.  When it has returned, an error
  // included, their memory is no longer touched; so after the destructor.
  virtual absl::Status Finish(int64_t exchange, Deadline deadline) = 0;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_TRANSPORT_H_
