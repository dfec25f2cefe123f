#include "worker/engine/active_request.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/logging.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

// Whether earlier tokens change the draw.
bool UsesHistory(const SamplingOptions& sampling) {
  return sampling.repetition_penalty != 1.0f ||
         sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

TokenHistory HistoryOf(const EngineRequest& request) {
  if (!UsesHistory(request.sampling)) return TokenHistory({});
  const std::span<const TokenId> prompt = request.prompt;
  TokenHistory history(
      prompt.first(prompt.size() - request.resumed_output_tokens));
  for (const TokenId token : prompt.last(request.resumed_output_tokens)) {
    history.Add(token);
  }
  return history;
}

const char* NameOf(Scheduler::Finish reason) {
  switch (reason) {
    case Scheduler::Finish::kStop:
      return "stop";
    case Scheduler::Finish::kLength:
      return "length";
    case Scheduler::Finish::kDeadline:
      return "deadline";
  }
  return "";
}

}  // namespace

ActiveRequest::ActiveRequest(SequenceId sequence, EngineRequest request,
                             std::shared_ptr<Outbox> outbox, absl::Time now)
    : sequence_(sequence),
      request_(std::move(request)),
      outbox_(std::move(outbox)),
      num_prompt_tokens_(static_cast<int>(request_.prompt.size())),
      history_(HistoryOf(request_)),
      arrived_(now) {}

Scheduler::NewSequence ActiveRequest::TakeSequence() {
  return {.id = sequence_,
          .prompt = std::move(request_.prompt),
          .max_tokens = request_.max_tokens,
          .priority = request_.priority,
          .deadline = request_.deadline};
}

bool ActiveRequest::IsStop(TokenId token) const {
  const std::vector<TokenId>& stops = request_.stop_tokens;
  return std::find(stops.begin(), stops.end(), token) != stops.end();
}

void ActiveRequest::Admit(absl::Time now, WorkerMetrics& metrics) {
  admitted_ = now;
  metrics.queue_seconds.Observe(absl::ToDoubleSeconds(now - arrived_));
}

void ActiveRequest::Preempt(WorkerMetrics& metrics) {
  ++preemptions_;
  metrics.preemptions.Increment();
}

void ActiveRequest::SetProgress(const Scheduler::Progress& progress) {
  cached_tokens_ = progress.cached_tokens;
  outbox_->SetProgress(progress);
}

void ActiveRequest::AddToken(SampledToken token, absl::Time now,
                             WorkerMetrics& metrics) {
  if (!first_token_.has_value()) {
    first_token_ = now;
    metrics.prefill_seconds.Observe(
        absl::ToDoubleSeconds(now - admitted_.value_or(arrived_)));
    metrics.time_to_first_token_seconds.Observe(
        absl::ToDoubleSeconds(now - arrived_));
  } else {
    metrics.inter_token_seconds.Observe(
        absl::ToDoubleSeconds(now - *last_token_));
  }
  last_token_ = now;
  ++output_tokens_;
  if (UsesHistory(request_.sampling)) history_.Add(token.token);
  outbox_->AddToken(std::move(token));
}

void ActiveRequest::Finish(absl::Status status, Scheduler::Finish reason,
                           absl::Time now, WorkerMetrics& metrics) {
  FinishedCounter(status, reason, metrics).Increment();
  const absl::Time admitted = admitted_.value_or(now);
  const absl::Time first_token = first_token_.value_or(now);
  Outbox::Finished finished{.status = std::move(status),
                            .reason = reason,
                            .cached_tokens = cached_tokens_,
                            .preemptions = preemptions_,
                            .queued = admitted - arrived_,
                            .prefill = first_token - admitted,
                            .decode = last_token_.value_or(now) - first_token};
  if (has_token()) {
    metrics.request_seconds.Observe(absl::ToDoubleSeconds(now - arrived_));
    metrics.output_tokens.Observe(output_tokens_);
  }
  LOG(INFO) << RequestTag(request_.id) << "finished: "
            << (finished.status.ok() ? NameOf(reason)
                                     : finished.status.ToString())
            << "; prompt_tokens=" << num_prompt_tokens_
            << " cached_tokens=" << cached_tokens_
            << " output_tokens=" << output_tokens_
            << " preemptions=" << preemptions_
            << " queue_seconds=" << absl::ToDoubleSeconds(finished.queued)
            << " prefill_seconds=" << absl::ToDoubleSeconds(finished.prefill)
            << " decode_seconds=" << absl::ToDoubleSeconds(finished.decode);
  outbox_->Finish(std::move(finished));
}

Counter& FinishedCounter(const absl::Status& status, Scheduler::Finish reason,
                         WorkerMetrics& metrics) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return reason == Scheduler::Finish::kLength ? metrics.finished_length
                                                  : metrics.finished_stop;
    case absl::StatusCode::kCancelled:
      return metrics.finished_cancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return metrics.finished_deadline;
    case absl::StatusCode::kResourceExhausted:
      return metrics.finished_queue_full;
    case absl::StatusCode::kFailedPrecondition:
      return metrics.finished_cannot_fit;
    case absl::StatusCode::kInvalidArgument:
      return metrics.finished_invalid;
    default:
      return metrics.finished_unavailable;
  }
}

}  // namespace lapidary
