// Which tokens of which requests the next step computes.
//
// Pure: the engine calls Plan(), runs the step, and reports with Commit().
//
//   Add ─► waiting ──admit──► prefilling ──last chunk──► decoding ──► finished
//             ▲                   │                          │
//             └────── preempted (pages given back, recomputed later) ◄──┘
//
//   one step   [ d d d d | p p p p p p p p p p p p p p p p | q q q ]
//                decode    chunk of the prefill whose turn   what is left
//                          it is, to a page border           to the next one
//
// A step holds one token of every decoding sequence first; what is left of the
// token budget goes to prefill chunks, round-robin among the prefilling
// sequences of the highest priority, then to the next priority, so that running
// streams keep their cadence and no prefill starves another.  An eighth of the
// budget is kept for prefills where there are as many streams as it has tokens;
// streams take turns then.
//
// In a group of several ranks, a step may be a round instead: a part of one
// long prompt, split over the ranks by tokens (prefill_planner.h).  Rounds take
// their turn among prefills; every stream has a token between two of them.
//
// Sequences are ranked by priority, then by arrival.  They are admitted in that
// order, and none passes one that does not fit yet.  One is admitted when there
// are pages for all that it has to compute and for a page of output of every
// running sequence, or when nothing runs.  When pages run out in the middle,
// the last in rank gives its pages back; only the last itself waits where it
// is. So the first in rank always advances, and every sequence finishes.

#ifndef WORKER_SCHEDULE_SCHEDULER_H_
#define WORKER_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/tokens.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/prefill_planner.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// Thread-compatible; in the worker the engine thread alone touches it.
class Scheduler {
 public:
  struct Options {
    // Tokens a step, decode and prefill together.  With 1, prefills wait while
    // streams run.
    int max_step_tokens = 512;
    // Running at once; also the most logit rows of a step.
    int max_sequences = 64;
    int max_waiting = 1024;  // Requests that wait; more are refused.
    // Prompt tokens of waiting requests; more are refused, but never a prompt
    // that would wait alone.
    int64_t max_waiting_tokens = 4 << 20;

    // Of a group of several ranks.  Without a model, or with that of one rank,
    // every step is head-split and as large as the budget allows.
    std::optional<CostModel> cost_model = std::nullopt;
    // Tokens of one rank in a round, a multiple of 64; 0: no rounds.
    int max_range_tokens = 0;
    // Of the replica on each rank: global pages of one sequence while it is
    // prefilled in rounds. A prompt that needs more gathers earlier keys anew
    // in each round. 0: no replica.
    int replica_pages = 0;
    // While streams run, the planned duration of a round, and of a head-split
    // step that has prefill chunks; a step of one page may take longer.
    absl::Duration inter_token_deadline = absl::InfiniteDuration();

    // Errors: INVALID_ARGUMENT.
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

  // What became of a sequence.
  struct Event {
    enum class Kind {
      kAdmitted,   // It left the queue, for the first time.
      kPrefilled,  // All of its prompt was computed, for the first time.
      kPreempted,  // It gave its pages back and waits again.
      kFinished,   // It left the scheduler; its id is unknown from here on.
    };
    Kind kind;
    SequenceId sequence;
    Finish finish = Finish::kStop;  // For kFinished.

    bool operator==(const Event&) const = default;
  };

  // What the engine drew for a sequence whose logits the step gave.
  struct Sampled {
    SequenceId sequence;
    TokenId token;
    bool stop;  // It ends the sequence.
  };

  struct Progress {
    int prefilled_tokens = 0;  // Of the prompt.
    int cached_tokens = 0;     // Of these, taken from a cache.
    bool queued = true;
  };

  struct Load {
    int running = 0;
    int waiting = 0;
    int64_t waiting_tokens = 0;      // That waiting sequences have to compute.
    int64_t unprefilled_tokens = 0;  // The same of waiting and prefilling ones.
  };

  using Counts = PrefillPlanner::Counts;

  // `cache` must outlive the scheduler.
  //
  // REQUIRES: options.Validate() is OK.
  Scheduler(const Options& options, KvCache& cache);
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Errors:
  //   INVALID_ARGUMENT     empty prompt, max_tokens <= 0, id known.
  //   FAILED_PRECONDITION  prompt + max_tokens can never fit the memory.
  //   DEADLINE_EXCEEDED    the deadline is not after `now`.
  //   RESOURCE_EXHAUSTED   the queue is full; try again later.
  absl::Status Add(NewSequence sequence, absl::Time now);

  // Forgets the sequence and gives its pages back, also between Plan() and
  // Commit().  Makes no event.  Unknown ids are ignored.
  void Cancel(SequenceId id);

  // The next step; empty only if there is no sequence at all.  Finishes those
  // whose deadline has passed.  Appends to `events`.  Valid until the next
  // call.
  //
  // REQUIRES: the last non-empty plan was committed.
  const StepPlan& Plan(absl::Time now, std::vector<Event>& events);

  // Reports that the step which Plan() gave has run: `sampled` has one entry
  // for each of its logit rows, in order (entries of sequences cancelled since
  // are ignored).  Appends to `events`.  An empty plan needs no Commit().
  void Commit(std::span<const Sampled> sampled, std::vector<Event>& events);

  // Zeros, and not queued, for an id that is not known.
  Progress progress(SequenceId id) const;
  Load load() const;
  // Since the start.
  const Counts& counts() const { return planner_.counts(); }

 private:
  struct Sequence;

  // The order of rank, best first.
  struct RanksBefore {
    bool operator()(const Sequence* a, const Sequence* b) const;
  };

  absl::Status CheckQueue(int64_t prompt_tokens) const;
  void FinishExpired(absl::Time now, std::vector<Event>& events);
  void PlanDecode(std::vector<Event>& events);
  void Admit(std::vector<Event>& events);
  void PlanPrefill(std::vector<Event>& events);

  // Which prefills a round may be planned for: the one whose turn it is, or any
  // that would be split, because nothing else can advance.
  enum class RoundFor { kNextInTurn, kAny };

  bool HasStreams() const;
  // Whether a stream had no token, nor the chance of one, since the last round.
  bool StreamsAreDue() const;
  // Returns whether the step is a round, round_.
  bool PlanRound(RoundFor whom, std::vector<Event>& events);
  // candidates_ become the sequences that prefill, in their turn.
  void ListPrefills();

  bool FitsBesideRunning(const Sequence& candidate) const;
  int PrefillShare() const;
  int ChunkEnd(const Sequence& sequence);
  int EndInTime(const Sequence& sequence, int end);
  std::span<const CostModel::Part> PartCosts();  // Of parts_.
  // Whether the step that is planned has a part that prefills.
  bool HasPrefill() const;
  // Makes room for `sequence` up to `end`, or as far as Reach() goes, at the
  // cost of sequences behind it in rank.  Returns whether it advances.
  bool MakeRoom(Sequence& sequence, int end, std::vector<Event>& events);
  void Preempt(Sequence& sequence, std::vector<Event>& events);
  void WritePart(Sequence& sequence);
  void Accept(Sequence& sequence, const Sampled& sampled,
              std::vector<Event>& events);
  void Remove(Sequence& sequence);

  const Options options_;
  KvCache& cache_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::set<Sequence*, RanksBefore> waiting_;
  std::vector<Sequence*> running_;  // In order of rank.
  int64_t waiting_tokens_ = 0;
  int64_t arrivals_ = 0;
  int64_t turns_ = 0;  // Handed out; the lowest is next.
  int64_t last_round_step_ = 0;
  absl::Time next_deadline_ = absl::InfiniteFuture();  // Or earlier.

  PrefillPlanner planner_;

  // The step between Plan() and Commit().
  int64_t step_ = 0;
  StepPlan plan_;
  // As plan_.sequences; null once cancelled.  A part is what the lease covers
  // beyond the computed positions.
  std::vector<Sequence*> parts_;
  int budget_ = 0;       // Tokens that are left while it is planned.
  PrefillChoice round_;  // Of a step that is one.
  std::vector<Sequence*> candidates_;        // Scratch.
  std::vector<CostModel::Part> part_costs_;  // Scratch.
  bool uncommitted_ = false;
};

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_SCHEDULER_H_
