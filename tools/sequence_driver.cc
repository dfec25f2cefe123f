#include "tools/sequence_driver.h"

#include <algorithm>
#include <utility>

#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {

KvCache::Options SequenceDriver::CacheFor(const GemmaConfig& config,
                                          const Options& options) {
  KvCache::Options cache;
  cache.window = config.window;
  cache.global_pages_per_rank =
      options.max_sequences *
      ((NumPages(options.max_tokens) + options.num_ranks - 1) /
       options.num_ranks);
  cache.num_ranks = options.num_ranks;
  // The window before a step and that at its end, each cut at page borders.
  cache.window_pages =
      options.max_sequences *
      std::min(NumPages(options.max_tokens), 2 * (NumPages(config.window) + 1));
  return cache;
}

SequenceDriver::SequenceDriver(Forward forward, const KvCache::Options& cache)
    : forward_(std::move(forward)),
      num_ranks_(cache.num_ranks),
      cache_(cache) {}

absl::StatusOr<std::unique_ptr<SequenceDriver>> SequenceDriver::Create(
    LoadedModel& model, const Options& options) {
  const KvCache::Options cache = CacheFor(model.config(), options);
  RETURN_IF_ERROR(model.Allocate(
      {.global = cache.global_pages_per_rank, .window = cache.window_pages}));
  return std::make_unique<SequenceDriver>(
      [&model](const StepPlan& plan, const Gemma::Observer& observer) {
        return model.gemma().Forward(plan, observer);
      },
      cache);
}

absl::StatusOr<std::unique_ptr<SequenceDriver>> SequenceDriver::Create(
    InProcessGroup& group, const Options& options, int replica_pages) {
  CHECK_EQ(options.num_ranks, group.size());
  const KvCache::Options cache = CacheFor(group.model(0).config(), options);
  RETURN_IF_ERROR(group.Allocate({.global = cache.global_pages_per_rank,
                                  .window = cache.window_pages,
                                  .replica = replica_pages}));
  return std::make_unique<SequenceDriver>(
      [&group](const StepPlan& plan, const Gemma::Observer& observer) {
        return group.Forward(plan, observer);
      },
      cache);
}

SequenceDriver::Sequence SequenceDriver::NewSequence(
    std::vector<TokenId> tokens) {
  return {.tokens = std::move(tokens),
          .num_computed = 0,
          .lease = cache_.NewLease()};
}

absl::Status SequenceDriver::Skip(int num_tokens, Sequence& sequence) {
  RETURN_IF_ERROR(
      cache_.Extend(sequence.num_computed + num_tokens, sequence.lease));
  sequence.num_computed += num_tokens;
  cache_.Trim(sequence.lease);
  return absl::OkStatus();
}

absl::StatusOr<Tensor> SequenceDriver::Step(std::span<const Part> parts,
                                            const Gemma::Observer& observer) {
  NewPlan();
  for (const Part& part : parts) RETURN_IF_ERROR(AddPart(part));
  return RunPlan(parts, observer);
}

absl::StatusOr<Tensor> SequenceDriver::StepRound(const Part& part,
                                                 std::vector<int> range_ends,
                                                 Replica replica) {
  NewPlan();
  plan_.layout = Layout::kTokenSplit;
  plan_.range_ends = std::move(range_ends);
  if (replica == Replica::kUse) {
    if (replica_owner_ != part.sequence) replica_tokens_ = 0;
    replica_owner_ = part.sequence;
    plan_.replica_tokens = replica_tokens_;
    replica_tokens_ = part.sequence->num_computed + part.num_tokens;
  }
  RETURN_IF_ERROR(AddPart(part));
  return RunPlan({&part, 1}, nullptr);
}

void SequenceDriver::NewPlan() {
  const int64_t step = plan_.step + 1;
  plan_.Clear();
  plan_.step = step;
}

absl::StatusOr<Tensor> SequenceDriver::RunPlan(
    std::span<const Part> parts, const Gemma::Observer& observer) {
  ASSIGN_OR_RETURN(const Tensor logits, forward_(plan_, observer));
  for (const Part& part : parts) {
    part.sequence->num_computed += part.num_tokens;
    cache_.Trim(part.sequence->lease);
  }
  return logits;
}

absl::Status SequenceDriver::AddPart(const Part& part) {
  Sequence& sequence = *part.sequence;
  const int start = sequence.num_computed;
  const int end = start + part.num_tokens;
  CHECK_LE(end, static_cast<int>(sequence.tokens.size()));
  RETURN_IF_ERROR(cache_.Extend(end, sequence.lease));

  const auto append = [](auto values, auto& to) {
    const int first = static_cast<int>(to.size());
    to.insert(to.end(), values.begin(), values.end());
    return first;
  };
  const KvCache::Lease& lease = sequence.lease;
  SequenceStep step;
  step.sequence = static_cast<SequenceId>(plan_.sequences.size());
  step.start = start;
  step.num_tokens = part.num_tokens;
  step.first_token = append(
      std::span(sequence.tokens).subspan(start, part.num_tokens), plan_.tokens);
  step.first_global_page = append(lease.global_pages(), plan_.global_pages);
  step.num_global_pages = static_cast<int>(lease.global_pages().size());
  step.window_base = lease.window_base();
  step.first_window_page = append(lease.window_pages(), plan_.window_pages);
  step.num_window_pages = static_cast<int>(lease.window_pages().size());
  for (const int position : part.logit_positions) {
    CHECK(position >= start && position < end);
    plan_.logit_rows.push_back(step.first_token + position - start);
  }
  plan_.sequences.push_back(step);
  return absl::OkStatus();
}

SequenceDriver::Part SequenceDriver::NextPart(Sequence& sequence,
                                              int num_tokens,
                                              std::span<const int> positions) {
  const int start = sequence.num_computed;
  Part part{.sequence = &sequence, .num_tokens = num_tokens};
  for (const int position : positions) {
    if (position >= start && position < start + num_tokens) {
      part.logit_positions.push_back(position);
    }
  }
  return part;
}

void SequenceDriver::Show(const Part& part, const Tensor& logits,
                          const LogitSink& sink) {
  for (int r = 0; r < logits.rows; ++r) {
    sink(part.logit_positions[r], {static_cast<const float*>(logits.row(r)),
                                   static_cast<size_t>(logits.cols)});
  }
}

absl::Status SequenceDriver::Prefill(Sequence& sequence, int chunk,
                                     std::span<const int> positions,
                                     const LogitSink& sink,
                                     const Gemma::Observer& observer) {
  const int size = static_cast<int>(sequence.tokens.size());
  while (sequence.num_computed < size) {
    const Part part = NextPart(
        sequence, std::min(chunk, size - sequence.num_computed), positions);
    ASSIGN_OR_RETURN(const Tensor logits, Step({&part, 1}, observer));
    Show(part, logits, sink);
  }
  return absl::OkStatus();
}

absl::Status SequenceDriver::Prefill(Sequence& sequence,
                                     const Schedule& schedule,
                                     std::span<const int> positions,
                                     const LogitSink& sink) {
  return schedule.rounds.has_value()
             ? PrefillInRounds(sequence, *schedule.rounds, positions, sink)
             : Prefill(sequence, schedule.chunk, positions, sink);
}

absl::Status SequenceDriver::PrefillInRounds(Sequence& sequence,
                                             const Rounds& rounds,
                                             std::span<const int> positions,
                                             const LogitSink& sink) {
  const int size = static_cast<int>(sequence.tokens.size());
  while (sequence.num_computed < size) {
    const int start = sequence.num_computed;
    // To a page border, wherever the last step ended.
    const int border =
        (start + rounds.round_tokens) / kPageTokens * kPageTokens;
    const int end = std::min(size, border);
    const Part part = NextPart(sequence, end - start, positions);
    ASSIGN_OR_RETURN(const Tensor logits,
                     StepRound(part,
                               SplitRound({start, end}, num_ranks_, rounds.cost,
                                          rounds.max_range_tokens),
                               rounds.replica));
    Show(part, logits, sink);
  }
  return absl::OkStatus();
}

}  // namespace lapidary
