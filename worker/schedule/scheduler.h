// Which tokens of which requests the next step computes.
//
// Pure: the engine calls Plan(), runs the step, and reports with Commit().
//
//   Add ─► waiting ──admit──► prefilling ──last chunk──► decoding ──► finished
//             ▲                   │                          │
//             └────── preempted (pages given back, recomputed later) ◄──┘
//
// A step holds one token of every decoding sequence first; what is left of the
// token budget goes to prefill chunks, round-robin among the prefilling
// sequences of the highest priority, so that running streams keep their cadence
// and no prefill starves another.

#ifndef WORKER_SCHEDULE_SCHEDULER_H_
#define WORKER_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/tokens.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Thread-compatible; in the worker the engine thread alone touches it.
class Scheduler {
 public:
  struct Options {
    int max_step_tokens = 512;   // Tokens a step, decode and prefill together.
    int max_sequences = 64;      // Running at once.
    int max_waiting = 1024;      // Requests that wait; more are refused.
    // Prompt tokens of waiting requests; more are refused.
    int64_t max_waiting_tokens = 4 << 20;

    absl::Status Validate() const;
  };

  struct NewSequence {
    SequenceId id = 0;
    std::vector<TokenId> prompt;
    int max_tokens = 0;  // Output tokens at most; > 0.
    int priority = 0;    // Higher first.
    absl::Time deadline = absl::InfiniteFuture();
  };

  enum class Finish { kStop, kLength, kDeadline };

  // A sequence that left the scheduler, or what became of one.
  struct Event {
    enum class Kind { kAdmitted, kPrefilled, kPreempted, kFinished };
    Kind kind;
    SequenceId sequence;
    Finish finish = Finish::kStop;  // For kFinished.
  };

  // What the engine drew for a sequence whose logits the step gave.
  struct Sampled {
    SequenceId sequence;
    TokenId token;
    bool stop;  // It ends the sequence.
  };

  struct Progress {
    int prefilled_tokens = 0;
    int cached_tokens = 0;
    bool queued = true;
  };

  struct Load {
    int running = 0;
    int waiting = 0;
    int64_t waiting_tokens = 0;   // Prompt tokens of waiting sequences.
    int64_t unprefilled_tokens = 0;  // Of waiting and running sequences.
  };

  // `cache` must outlive the scheduler.
  Scheduler(const Options& options, KvCache& cache);
  ~Scheduler();

  // Errors:
  //   INVALID_ARGUMENT     empty prompt, max_tokens <= 0, id known.
  //   FAILED_PRECONDITION  prompt + max_tokens can never fit the memory.
  //   RESOURCE_EXHAUSTED   the queue is full; try again later.
  absl::Status Add(NewSequence sequence, absl::Time now);

  // Forgets the sequence and gives its pages back.  Unknown ids are ignored.
  void Cancel(SequenceId id);

  // The next step, empty if there is nothing to do.  Finishes sequences whose
  // deadline has passed.  Events since the last call are appended to `events`.
  // Valid until the next call.
  //
  // REQUIRES: the last non-empty plan was committed.
  const StepPlan& Plan(absl::Time now, std::vector<Event>& events);

  // Reports the step that Plan() gave: `sampled` has one entry for each of
  // its logit rows, in order (entries of sequences cancelled since are ignored).
  void Commit(std::span<const Sampled> sampled, std::vector<Event>& events);

  Progress progress(SequenceId id) const;
  Load load() const;

 private:
  struct Sequence;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_SCHEDULER_H_
