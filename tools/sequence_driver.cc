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
      options.max_sequences * NumPages(options.max_tokens);
  // The window before a step and that at its end, each cut at page borders.
  cache.window_pages =
      options.max_sequences *
      std::min(NumPages(options.max_tokens), 2 * (NumPages(config.window) + 1));
  return cache;
}

SequenceDriver::SequenceDriver(Gemma& gemma, const KvCache::Options& cache)
    : gemma_(gemma), cache_(cache) {}

absl::StatusOr<std::unique_ptr<SequenceDriver>> SequenceDriver::Create(
    LoadedModel& model, const Options& options) {
  const KvCache::Options cache = CacheFor(model.config(), options);
  RETURN_IF_ERROR(
      model.AllocateKv(cache.global_pages_per_rank, cache.window_pages));
  return std::make_unique<SequenceDriver>(model.gemma(), cache);
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
  const int64_t step = plan_.step + 1;
  plan_.Clear();
  plan_.step = step;
  for (const Part& part : parts) RETURN_IF_ERROR(AddPart(part));
  ASSIGN_OR_RETURN(const Tensor logits, gemma_.Forward(plan_, observer));
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

absl::Status SequenceDriver::Prefill(Sequence& sequence, int chunk,
                                     std::span<const int> positions,
                                     const LogitSink& sink,
                                     const Gemma::Observer& observer) {
  const int size = static_cast<int>(sequence.tokens.size());
  while (sequence.num_computed < size) {
    const int start = sequence.num_computed;
    Part part{.sequence = &sequence,
              .num_tokens = std::min(chunk, size - start)};
    for (const int position : positions) {
      if (position >= start && position < start + part.num_tokens) {
        part.logit_positions.push_back(position);
      }
    }
    ASSIGN_OR_RETURN(const Tensor logits, Step({&part, 1}, observer));
    for (int r = 0; r < logits.rows; ++r) {
      sink(part.logit_positions[r], {static_cast<const float*>(logits.row(r)),
                                     static_cast<size_t>(logits.cols)});
    }
  }
  return absl::OkStatus();
}

}  // namespace lapidary
