// Ranks as threads of one process: for tests, and for groups of one.

#ifndef WORKER_PARALLEL_LOCAL_COLLECTIVE_H_
#define WORKER_PARALLEL_LOCAL_COLLECTIVE_H_

#include <memory>
#include <vector>

#include "worker/parallel/collective.h"

namespace lapidary {

// Owns N collectives.  Each is used by a thread of its own; the group must
// outlive their use.  A message is copied once, by the thread that receives it,
// from where the sender has it.
class LocalGroup {
 public:
  // REQUIRES: num_ranks > 0.
  explicit LocalGroup(int num_ranks);
  ~LocalGroup();

  LocalGroup(const LocalGroup&) = delete;
  LocalGroup& operator=(const LocalGroup&) = delete;

  Collective& rank(int rank) const;

  // A rank goes: whoever waits for any rank now or later gets UNAVAILABLE.
  // Thread-safe.
  void Abandon();

 private:
  class Link;
  class Transport;

  // From rank i to rank j: links_[i * N + j].
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<std::unique_ptr<Collective>> ranks_;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_LOCAL_COLLECTIVE_H_
