#include "worker/rpc/run_call.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grpc_status.h"
#include "common/logging.h"
#include "common/request_id.h"
#include "glog/logging.h"
#include "worker/engine/active_request.h"

namespace lapidary {
namespace {

v1::RunProgress ToMessage(const Scheduler::Progress& progress) {
  v1::RunProgress message;
  message.set_prefilled_tokens(progress.prefilled_tokens);
  message.set_cached_tokens(progress.cached_tokens);
  message.set_queued(progress.queued);
  return message;
}

v1::TokenLogprob ToMessage(TokenId token, float logprob) {
  v1::TokenLogprob message;
  message.set_token_id(token);
  message.set_logprob(logprob);
  return message;
}

v1::RunTokens ToMessage(const std::vector<SampledToken>& tokens,
                        bool with_logprobs) {
  v1::RunTokens message;
  for (const SampledToken& token : tokens) {
    message.add_token_ids(token.token);
    if (!with_logprobs) continue;
    v1::PositionLogprobs& logprobs = *message.add_logprobs();
    *logprobs.mutable_chosen() = ToMessage(token.token, token.logprob);
    for (const TokenLogprob& top : token.top) {
      *logprobs.add_top() = ToMessage(top.token, top.logprob);
    }
  }
  return message;
}

v1::RunFinished ToMessage(const Outbox::Finished& finished) {
  v1::RunFinished message;
  message.set_reason(finished.reason == Scheduler::Finish::kLength
                         ? v1::FINISH_REASON_LENGTH
                         : v1::FINISH_REASON_STOP);
  message.set_cached_tokens(finished.cached_tokens);
  message.set_queue_seconds(absl::ToDoubleSeconds(finished.queued));
  message.set_prefill_seconds(absl::ToDoubleSeconds(finished.prefill));
  message.set_decode_seconds(absl::ToDoubleSeconds(finished.decode));
  message.set_preemptions(finished.preemptions);
  return message;
}

// From the request, else from the metadata, else a new one.
std::string RequestIdOf(const grpc::CallbackServerContext& context,
                        const v1::RunRequest& request) {
  if (IsRequestId(request.request_id())) return request.request_id();
  const auto it = context.client_metadata().find(kRequestIdKey);
  if (it != context.client_metadata().end()) {
    const absl::string_view id(it->second.data(), it->second.size());
    if (IsRequestId(id)) return std::string(id);
  }
  return NewRequestId();
}

}  // namespace

RunCall* RunCall::Start(grpc::CallbackServerContext& context,
                        const v1::RunRequest& request, const RunLimits& limits,
                        Engine& engine, WorkerMetrics& metrics,
                        Ticker& ticker) {
  const std::shared_ptr<RunCall> call(new RunCall());
  call->self_ = call;
  call->request_id_ = RequestIdOf(context, request);
  context.AddTrailingMetadata(kRequestIdKey, call->request_id_);
  absl::StatusOr<EngineRequest> parsed = ParseRunRequest(request, limits);
  if (parsed.ok()) {
    call->Submit(context, *std::move(parsed), engine, ticker);
  } else {
    FinishedCounter(parsed.status(), Scheduler::Finish::kStop, metrics)
        .Increment();
    call->Refuse(parsed.status());
  }
  return call.get();
}

void RunCall::Submit(const grpc::CallbackServerContext& context,
                     EngineRequest request, Engine& engine, Ticker& ticker) {
  request.id = request_id_;
  request.deadline = absl::FromChrono(context.deadline());
  with_logprobs_ = request.sampling.logprobs.has_value();
  const std::weak_ptr<RunCall> weak = weak_from_this();
  outbox_ = std::make_shared<Outbox>(request.max_tokens, [weak] {
    if (const std::shared_ptr<RunCall> call = weak.lock()) call->Advance();
  });
  {
    MutexLock lock(mutex_);
    *last_progress_.mutable_progress() = ToMessage(Scheduler::Progress());
    subscription_ = ticker.Subscribe([weak] {
      if (const std::shared_ptr<RunCall> call = weak.lock()) {
        call->RepeatProgress();
      }
    });
  }
  const absl::Status status = engine.Submit(std::move(request), outbox_);
  if (!status.ok()) Refuse(status);
}

void RunCall::Refuse(const absl::Status& status) {
  LOG(INFO) << RequestTag(request_id_) << "refused: " << status;
  {
    MutexLock lock(mutex_);
    status_ = status;
  }
  Advance();
}

void RunCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) lost_ = true;
  }
  Advance();
}

void RunCall::OnCancel() {
  {
    MutexLock lock(mutex_);
    lost_ = true;
  }
  Advance();
}

void RunCall::OnDone() {
  const std::shared_ptr<RunCall> self = std::move(self_);
  if (outbox_ != nullptr) outbox_->Cancel();
  MutexLock lock(mutex_);
  subscription_.reset();
}

void RunCall::Advance() {
  std::optional<absl::Status> status;
  {
    MutexLock lock(mutex_);
    if (writing_ || finished_) return;
    if (lost_) status_ = absl::CancelledError("the caller is gone");
    if (unsent_.empty() && !status_.has_value()) TakeFromOutbox();
    if (!unsent_.empty() && !lost_) {
      writing_ = true;
      sending_ = std::move(unsent_.front());
      unsent_.pop_front();
    } else if (status_.has_value()) {
      finished_ = true;
      status = std::exchange(status_, std::nullopt);
    } else {
      return;
    }
  }
  // Without the lock: gRPC may call back before it returns.
  if (status.has_value()) {
    SetRequestId(request_id_, *status);
    Finish(ToGrpcStatus(*status));
  } else {
    StartWrite(&sending_);
  }
}

void RunCall::RepeatProgress() {
  {
    MutexLock lock(mutex_);
    if (has_tokens_ || writing_ || finished_ || !unsent_.empty()) return;
    unsent_.push_back(last_progress_);
  }
  Advance();
}

void RunCall::TakeFromOutbox() {
  Outbox::Contents contents = outbox_->Take(kMessageTokens);
  if (contents.progress.has_value() && !has_tokens_) {
    *last_progress_.mutable_progress() = ToMessage(*contents.progress);
    unsent_.push_back(last_progress_);
  }
  if (!contents.tokens.empty()) {
    has_tokens_ = true;
    *unsent_.emplace_back().mutable_tokens() =
        ToMessage(contents.tokens, with_logprobs_);
  }
  if (contents.finished.has_value()) {
    if (contents.finished->status.ok()) {
      *unsent_.emplace_back().mutable_finished() =
          ToMessage(*contents.finished);
    }
    status_ = std::move(contents.finished->status);
  }
}

}  // namespace lapidary
