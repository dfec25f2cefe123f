#include "router/rpc/response_queue.h"

#include <utility>

namespace lapidary {

void ResponseQueue::AddProgress(v1::Progress progress) {
  progress_ = std::move(progress);
}

void ResponseQueue::AddDelta(v1::Delta delta) {
  delta_bytes_ += static_cast<int64_t>(delta.ByteSizeLong());
  if (!delta_.has_value()) {
    delta_ = std::move(delta);
    return;
  }
  delta_->mutable_text()->append(delta.text());
  delta_->mutable_thinking()->append(delta.thinking());
  delta_->mutable_token_ids()->MergeFrom(delta.token_ids());
  for (v1::PositionLogprobs& logprobs : *delta.mutable_logprobs())
    *delta_->add_logprobs() = std::move(logprobs);
}

void ResponseQueue::AddCompleted(v1::Completed completed) {
  completed_ = std::move(completed);
}

bool ResponseQueue::empty() const {
  return !progress_.has_value() && !delta_.has_value() &&
         !completed_.has_value();
}

std::optional<v1::GenerateResponse> ResponseQueue::TakeNext() {
  v1::GenerateResponse response;
  if (progress_.has_value()) {
    *response.mutable_progress() = *std::move(progress_);
    progress_.reset();
  } else if (delta_.has_value()) {
    *response.mutable_delta() = *std::move(delta_);
    delta_.reset();
    delta_bytes_ = 0;
  } else if (completed_.has_value()) {
    *response.mutable_completed() = *std::move(completed_);
    completed_.reset();
  } else {
    return std::nullopt;
  }
  return response;
}

}  // namespace lapidary
