// A group of processes on one or several hosts: messages over TCP, by Gloo.

#ifndef WORKER_PARALLEL_GLOO_COLLECTIVE_H_
#define WORKER_PARALLEL_GLOO_COLLECTIVE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/deadline.h"
#include "worker/parallel/collective.h"

namespace lapidary {

struct GlooOptions {
  int rank = 0;
  int num_ranks = 0;  // At least 2.

  // The numeric address that this rank listens on and the others connect to.
  std::string host;

  // Gives this rank's string to the others; returns those of all, by rank.
  std::function<absl::StatusOr<std::vector<std::string>>(std::string)>
      all_gather;

  // Of connecting.
  Deadline deadline = Deadline::Never();
};

// Connects every rank with every other; each calls it once.  Gloo runs a thread
// of its own that reads and writes the sockets.
//
// From then on the process ignores SIGPIPE: a closed connection is an error of
// the next operation.
//
// Errors: INVALID_ARGUMENT if `host` is no address of this machine, UNAVAILABLE
// or DEADLINE_EXCEEDED if a rank cannot be reached, and those of all_gather.
absl::StatusOr<std::unique_ptr<Collective>> ConnectGloo(
    const GlooOptions& options);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_GLOO_COLLECTIVE_H_
