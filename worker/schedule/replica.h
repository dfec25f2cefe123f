// Which sequence has the replica, and how much of it.
//
// Every rank keeps room for the global keys of one prompt while it is prefilled
// in rounds (architecture: "token split"), so that each key travels once. It is
// filled from position 0 on; a rank fetches what is missing before a round, and
// adds the round.
//
//   free ──Take──► of a sequence, 0 tokens ──Hold──► … ──Release──► free

#ifndef WORKER_SCHEDULE_REPLICA_H_
#define WORKER_SCHEDULE_REPLICA_H_

#include <optional>

#include "worker/schedule/step_plan.h"

namespace lapidary {

class Replica {
 public:
  // Of each rank; 0: nobody gets it.
  explicit Replica(int num_pages) : num_pages_(num_pages) {}

  // Positions that it holds of `sequence`, 0 if it could have it. kNoReplica if
  // another has it, or if `num_tokens`, all that the sequence will compute
  // before it decodes, do not fit.
  int TokensFor(SequenceId sequence, int num_tokens) const;

  // REQUIRES of both: TokensFor() is not kNoReplica.
  void Take(SequenceId sequence);
  // It holds positions [0, num_tokens) now.
  void Hold(SequenceId sequence, int num_tokens);

  // Frees it if `sequence` has it.
  void Release(SequenceId sequence);

 private:
  const int num_pages_;
  std::optional<SequenceId> owner_;
  int num_tokens_ = 0;
};

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_REPLICA_H_
