#include "worker/schedule/scheduler.h"

#include <algorithm>
#include <climits>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {

struct Scheduler::Sequence {
  SequenceId id = 0;
  std::vector<TokenId> tokens;  // The prompt, then what was emitted.
  int num_prompt = 0;
  int max_tokens = 0;
  int priority = 0;
  int64_t arrival = 0;
  absl::Time deadline;

  KvCache::Lease lease;
  int computed = 0;  // Positions of committed steps since it was admitted.
  int64_t turn = 0;  // The lower, the longer it has waited for its turn.
  // The last step that had a part of it, or that had none as pages were short.
  int64_t served_step = 0;
  bool running = false;
  bool was_admitted = false;
  bool was_prefilled = false;

  int size() const { return static_cast<int>(tokens.size()); }
  PrefillPlanner::Rest rest() const { return {id, computed, size()}; }
  int num_output() const { return size() - num_prompt; }
  int num_uncomputed() const { return size() - computed; }
  // All but the token that the last step emitted is computed.
  bool decoding() const { return num_uncomputed() == 1 && num_output() > 0; }
  // All that it has to compute, and a page of output.
  int size_with_reserve() const {
    return std::min(size() + kPageTokens, num_prompt + max_tokens);
  }
};

bool Scheduler::RanksBefore::operator()(const Sequence* a,
                                        const Sequence* b) const {
  return std::make_tuple(-int64_t{a->priority}, a->arrival) <
         std::make_tuple(-int64_t{b->priority}, b->arrival);
}

absl::Status Scheduler::Options::Validate() const {
  if (max_step_tokens <= 0 || max_sequences <= 0 || max_waiting <= 0 ||
      max_waiting_tokens <= 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scheduler options must be positive: max_step_tokens %d, "
        "max_sequences %d, max_waiting %d, max_waiting_tokens %d",
        max_step_tokens, max_sequences, max_waiting, max_waiting_tokens));
  }
  if (max_range_tokens < 0 || max_range_tokens % kPageTokens != 0 ||
      replica_pages < 0 || inter_token_deadline <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scheduler options for several ranks: needs max_range_tokens a "
        "multiple of %d, replica_pages not negative and inter_token_deadline "
        "positive, has %d, %d and %s",
        kPageTokens, max_range_tokens, replica_pages,
        absl::FormatDuration(inter_token_deadline)));
  }
  return absl::OkStatus();
}

Scheduler::Scheduler(const Options& options, KvCache& cache)
    : options_(options),
      cache_(cache),
      planner_({.cost_model = options.cost_model,
                .max_step_tokens = options.max_step_tokens,
                .max_range_tokens = options.max_range_tokens,
                .replica_pages = options.replica_pages,
                .inter_token_deadline = options.inter_token_deadline}) {
  const absl::Status status = options.Validate();
  CHECK(status.ok()) << status;
  running_.reserve(options.max_sequences);
  candidates_.reserve(options.max_sequences);
  parts_.reserve(options.max_sequences);
}

Scheduler::~Scheduler() = default;

// ------------------------------------------------------------ Add, Cancel

absl::Status Scheduler::Add(NewSequence sequence, absl::Time now) {
  if (sequence.prompt.empty()) {
    return absl::InvalidArgumentError("the prompt is empty");
  }
  if (sequence.max_tokens <= 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "max_tokens must be positive, is %d", sequence.max_tokens));
  }
  if (sequences_.contains(sequence.id)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sequence %d is known already", sequence.id));
  }
  const auto num_prompt = static_cast<int64_t>(sequence.prompt.size());
  const int64_t longest = num_prompt + sequence.max_tokens;
  if (longest > INT_MAX - kPageTokens ||
      !cache_.CanEverFit(static_cast<int>(longest))) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "needs key/value memory for %d prompt + %d output tokens; all of it is "
        "%d global and %d window pages of %d tokens",
        num_prompt, sequence.max_tokens, cache_.global_use().total,
        cache_.window_use().total, kPageTokens));
  }
  if (sequence.deadline <= now) {
    return absl::DeadlineExceededError("the deadline has passed already");
  }
  RETURN_IF_ERROR(CheckQueue(num_prompt));

  auto added = std::make_unique<Sequence>();
  added->id = sequence.id;
  added->tokens = std::move(sequence.prompt);
  added->num_prompt = static_cast<int>(num_prompt);
  added->max_tokens = sequence.max_tokens;
  added->priority = sequence.priority;
  added->arrival = ++arrivals_;
  added->deadline = sequence.deadline;
  added->lease = cache_.NewLease();
  next_deadline_ = std::min(next_deadline_, added->deadline);
  waiting_.insert(added.get());
  waiting_tokens_ += num_prompt;
  sequences_.emplace(sequence.id, std::move(added));
  return absl::OkStatus();
}

absl::Status Scheduler::CheckQueue(int64_t prompt_tokens) const {
  const auto waiting = static_cast<int>(waiting_.size());
  if (waiting >= options_.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%d requests wait, at most %d may", waiting, options_.max_waiting));
  }
  if (waiting > 0 &&
      waiting_tokens_ + prompt_tokens > options_.max_waiting_tokens) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%d tokens wait, at most %d may; the prompt has %d", waiting_tokens_,
        options_.max_waiting_tokens, prompt_tokens));
  }
  return absl::OkStatus();
}

void Scheduler::Cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) Remove(*found->second);
}

void Scheduler::Remove(Sequence& sequence) {
  planner_.Release(sequence.id);
  if (sequence.running) {
    running_.erase(std::find(running_.begin(), running_.end(), &sequence));
    std::replace(parts_.begin(), parts_.end(), &sequence,
                 static_cast<Sequence*>(nullptr));
  } else {
    waiting_.erase(&sequence);
    waiting_tokens_ -= sequence.num_uncomputed();
  }
  sequences_.erase(sequence.id);
}

// ------------------------------------------------------------------- Plan

const StepPlan& Scheduler::Plan(absl::Time now, std::vector<Event>& events) {
  CHECK(!uncommitted_) << "step " << step_ << " was not committed";
  ++step_;
  parts_.clear();
  budget_ = options_.max_step_tokens;
  FinishExpired(now, events);
  planner_.StartStep(HasStreams() ? PrefillPlanner::Streams::kRunning
                                  : PrefillPlanner::Streams::kNone);
  bool is_round = PlanRound(RoundFor::kNextInTurn, events);
  if (!is_round) {
    PlanDecode(events);
    Admit(events);
    PlanPrefill(events);
    if (parts_.empty()) is_round = PlanRound(RoundFor::kAny, events);
  }
  CHECK(sequences_.empty() || !parts_.empty()) << "no sequence can advance";
  uncommitted_ = !parts_.empty();
  if (!uncommitted_) --step_;
  plan_.Clear();
  plan_.step = step_;
  for (Sequence* sequence : parts_) WritePart(*sequence);
  if (is_round) {
    last_round_step_ = step_;
    planner_.WriteRound(parts_.front()->rest(), round_, plan_);
  } else {
    planner_.WriteTime(PartCosts(), plan_);
  }
  if (HasPrefill()) planner_.CountIfLate(plan_);
  return plan_;
}

void Scheduler::FinishExpired(absl::Time now, std::vector<Event>& events) {
  if (now < next_deadline_) return;
  std::vector<Sequence*> all(running_);
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  next_deadline_ = absl::InfiniteFuture();
  for (Sequence* sequence : all) {
    if (sequence->deadline > now) {
      next_deadline_ = std::min(next_deadline_, sequence->deadline);
      continue;
    }
    events.push_back({.kind = Event::Kind::kFinished,
                      .sequence = sequence->id,
                      .finish = Finish::kDeadline});
    Remove(*sequence);
  }
}

// One token of each decoding sequence.  If they want more than their share of
// the budget, those go first that waited longest.
void Scheduler::PlanDecode(std::vector<Event>& events) {
  candidates_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->decoding()) candidates_.push_back(sequence);
  }
  const bool alone = candidates_.size() == running_.size();
  const int kept = alone ? 0 : PrefillShare();
  budget_ -= kept;
  if (static_cast<int>(candidates_.size()) > budget_) {
    std::sort(
        candidates_.begin(), candidates_.end(),
        [](const Sequence* a, const Sequence* b) { return a->turn < b->turn; });
  }
  for (Sequence* sequence : candidates_) {
    if (budget_ == 0) break;
    if (!sequence->running) continue;  // Preempted by one before it.
    sequence->served_step = step_;
    if (!MakeRoom(*sequence, sequence->size(), events)) continue;
    parts_.push_back(sequence);
    sequence->turn = ++turns_;
    --budget_;
  }
  budget_ += kept;
}

// What decoding sequences leave of a budget that is too small for all, so that
// prefills advance as well.
int Scheduler::PrefillShare() const {
  return std::min((options_.max_step_tokens + 7) / 8,
                  options_.max_step_tokens - 1);
}

void Scheduler::Admit(std::vector<Event>& events) {
  while (!waiting_.empty() &&
         static_cast<int>(running_.size()) < options_.max_sequences) {
    Sequence* first = *waiting_.begin();
    if (!running_.empty() && !FitsBesideRunning(*first)) break;
    waiting_.erase(waiting_.begin());
    waiting_tokens_ -= first->num_uncomputed();
    running_.insert(std::upper_bound(running_.begin(), running_.end(), first,
                                     RanksBefore()),
                    first);
    first->running = true;
    first->turn = ++turns_;
    first->tokens.reserve(first->num_prompt + first->max_tokens);
    if (std::exchange(first->was_admitted, true)) continue;
    events.push_back({.kind = Event::Kind::kAdmitted, .sequence = first->id});
  }
}

bool Scheduler::FitsBesideRunning(const Sequence& candidate) const {
  int global = 0;
  int window = 0;
  const auto add_outstanding = [&](const Sequence& sequence) {
    const int size = sequence.size_with_reserve();
    const auto held = static_cast<int>(sequence.lease.global_pages().size());
    global += std::max(0, NumPages(size) - held);
    window += std::max(0, WindowPages(size, cache_.window()) -
                              sequence.lease.num_window_pages_held());
  };
  for (const Sequence* sequence : running_) add_outstanding(*sequence);
  add_outstanding(candidate);
  return global <= cache_.free_global_pages() &&
         window <= cache_.free_window_pages();
}

void Scheduler::ListPrefills() {
  candidates_.clear();
  for (Sequence* sequence : running_) {
    if (!sequence->decoding()) candidates_.push_back(sequence);
  }
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Sequence* a, const Sequence* b) {
              if (a->priority != b->priority) return a->priority > b->priority;
              return a->turn < b->turn;
            });
}

void Scheduler::PlanPrefill(std::vector<Event>& events) {
  ListPrefills();
  int64_t served_priority = INT64_MAX;
  for (Sequence* sequence : candidates_) {
    if (budget_ == 0) break;
    if (!sequence->running) continue;  // Preempted by one before it.
    if (planner_.Choose(sequence->rest()).layout == Layout::kTokenSplit) {
      continue;
    }
    const int end = ChunkEnd(*sequence);
    if (end == sequence->computed) continue;
    if (!MakeRoom(*sequence, end, events)) {
      // It had its turn: a round for another need not wait for it.
      if (planner_.has_rounds()) sequence->turn = ++turns_;
      continue;
    }
    parts_.push_back(sequence);
    budget_ -= sequence->lease.num_tokens() - sequence->computed;
    // Who gets what others leave keeps its turn.
    if (sequence->priority == served_priority) continue;
    served_priority = sequence->priority;
    sequence->turn = ++turns_;
  }
}

// Its end or a page border, as far as the budget goes.  Where the budget
// reaches neither, none of it is used but by the first prefill of a step.
int Scheduler::ChunkEnd(const Sequence& sequence) {
  const int64_t end = int64_t{sequence.computed} + budget_;
  if (end >= sequence.size()) return EndInTime(sequence, sequence.size());
  const int border = static_cast<int>(end) / kPageTokens * kPageTokens;
  if (border > sequence.computed) return EndInTime(sequence, border);
  return HasPrefill() ? sequence.computed : static_cast<int>(end);
}

int Scheduler::EndInTime(const Sequence& sequence, int end) {
  const PrefillPlanner::ChunkEnd chunk =
      planner_.EndInTime(PartCosts(), sequence.rest(), end);
  // Where not even a page is, the first prefill of a step takes it all the
  // same.
  return chunk.in_time || !HasPrefill() ? chunk.end : sequence.computed;
}

std::span<const CostModel::Part> Scheduler::PartCosts() {
  part_costs_.clear();
  for (const Sequence* sequence : parts_) {
    part_costs_.push_back(
        {.context = sequence->computed,
         .num_tokens = sequence->lease.num_tokens() - sequence->computed});
  }
  return part_costs_;
}

bool Scheduler::HasPrefill() const {
  return !parts_.empty() && !parts_.back()->decoding();
}

bool Scheduler::MakeRoom(Sequence& sequence, int end,
                         std::vector<Event>& events) {
  int reach = cache_.Reach(end, sequence.lease);
  while (reach == sequence.computed) {
    // The last in rank that holds pages gives them back.
    auto last = running_.rbegin();
    while (*last != &sequence && (*last)->lease.num_tokens() == 0) ++last;
    if (*last == &sequence) return false;
    Preempt(**last, events);
    reach = cache_.Reach(end, sequence.lease);
  }
  const absl::Status extended = cache_.Extend(reach, sequence.lease);
  CHECK(extended.ok()) << extended;
  return true;
}

void Scheduler::Preempt(Sequence& sequence, std::vector<Event>& events) {
  const auto part = std::find(parts_.begin(), parts_.end(), &sequence);
  if (part != parts_.end()) {
    budget_ += sequence.lease.num_tokens() - sequence.computed;
    parts_.erase(part);
  }
  sequence.lease = cache_.NewLease();
  planner_.Release(sequence.id);
  sequence.computed = 0;
  sequence.running = false;
  running_.erase(std::find(running_.begin(), running_.end(), &sequence));
  waiting_.insert(&sequence);
  waiting_tokens_ += sequence.num_uncomputed();
  events.push_back({.kind = Event::Kind::kPreempted, .sequence = sequence.id});
}

void Scheduler::WritePart(Sequence& sequence) {
  sequence.served_step = step_;
  const KvCache::Lease& lease = sequence.lease;
  const int start = sequence.computed;
  const int end = lease.num_tokens();
  const auto append = [](auto& to, auto&& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  SequenceStep step;
  step.sequence = sequence.id;
  step.start = start;
  step.num_tokens = end - start;
  step.first_token = static_cast<int>(plan_.tokens.size());
  step.first_global_page = static_cast<int>(plan_.global_pages.size());
  step.num_global_pages = static_cast<int>(lease.global_pages().size());
  step.window_base = lease.window_base();
  step.first_window_page = static_cast<int>(plan_.window_pages.size());
  step.num_window_pages = static_cast<int>(lease.window_pages().size());
  plan_.sequences.push_back(step);
  append(plan_.tokens, std::span(sequence.tokens).subspan(start, end - start));
  append(plan_.global_pages, lease.global_pages());
  append(plan_.window_pages, lease.window_pages());
  if (end == sequence.size()) {
    plan_.logit_rows.push_back(static_cast<int>(plan_.tokens.size()) - 1);
  }
}

// ----------------------------------------------------------------- Rounds

bool Scheduler::HasStreams() const {
  return std::any_of(running_.begin(), running_.end(),
                     [](const Sequence* s) { return s->decoding(); });
}

bool Scheduler::StreamsAreDue() const {
  return std::any_of(running_.begin(), running_.end(), [&](const Sequence* s) {
    return s->decoding() && s->served_step <= last_round_step_;
  });
}

bool Scheduler::PlanRound(RoundFor whom, std::vector<Event>& events) {
  if (!planner_.has_rounds()) return false;
  Admit(events);
  if (whom == RoundFor::kNextInTurn && StreamsAreDue()) return false;
  ListPrefills();
  for (Sequence* sequence : candidates_) {
    if (!sequence->running) continue;  // Preempted by one before it.
    round_ = planner_.Choose(sequence->rest());
    if (round_.layout == Layout::kHeadSplit) {
      if (whom == RoundFor::kNextInTurn) return false;
      continue;
    }
    const int end = sequence->computed + round_.num_tokens;
    if (!MakeRoom(*sequence, end, events)) continue;
    const int reached = sequence->lease.num_tokens();
    if (reached < end) round_ = planner_.RoundTo(sequence->rest(), reached);
    parts_.push_back(sequence);
    sequence->turn = ++turns_;
    return true;
  }
  return false;
}

// ----------------------------------------------------------------- Commit

void Scheduler::Commit(std::span<const Sampled> sampled,
                       std::vector<Event>& events) {
  CHECK_EQ(sampled.size(), plan_.logit_rows.size());
  uncommitted_ = false;
  auto next = sampled.begin();
  for (size_t i = 0; i < parts_.size(); ++i) {
    const SequenceStep& step = plan_.sequences[i];
    const int last_row = step.first_token + step.num_tokens - 1;
    const bool has_logits =
        next != sampled.end() &&
        plan_.logit_rows[next - sampled.begin()] == last_row;
    Sequence* sequence = parts_[i];
    if (sequence != nullptr) {
      sequence->computed = sequence->lease.num_tokens();
      cache_.Trim(sequence->lease);
      planner_.Ran(plan_, sequence->rest());
      if (has_logits) Accept(*sequence, *next, events);
    }
    if (has_logits) ++next;
  }
  CHECK(next == sampled.end());
  parts_.clear();
}

void Scheduler::Accept(Sequence& sequence, const Sampled& sampled,
                       std::vector<Event>& events) {
  CHECK_EQ(sampled.sequence, sequence.id);
  if (!std::exchange(sequence.was_prefilled, true)) {
    events.push_back(
        {.kind = Event::Kind::kPrefilled, .sequence = sequence.id});
  }
  sequence.tokens.push_back(sampled.token);
  if (!sampled.stop && sequence.num_output() < sequence.max_tokens) return;
  events.push_back({.kind = Event::Kind::kFinished,
                    .sequence = sequence.id,
                    .finish = sampled.stop ? Finish::kStop : Finish::kLength});
  Remove(sequence);
}

// --------------------------------------------------------------- Accounts

Scheduler::Progress Scheduler::progress(SequenceId id) const {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return {.queued = false};
  const Sequence& sequence = *found->second;
  return {.prefilled_tokens = std::min(sequence.computed, sequence.num_prompt),
          .queued = !sequence.running};
}

Scheduler::Load Scheduler::load() const {
  Load load = {.running = static_cast<int>(running_.size()),
               .waiting = static_cast<int>(waiting_.size()),
               .waiting_tokens = waiting_tokens_,
               .unprefilled_tokens = waiting_tokens_};
  for (const Sequence* sequence : running_) {
    if (sequence->decoding()) continue;
    load.unprefilled_tokens += sequence->num_uncomputed();
  }
  return load;
}

}  // namespace lapidary
