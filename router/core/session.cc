#include "router/core/session.h"

#include <algorithm>
#include <utility>

namespace lapidary {

Session::Session(const Tokenizer& tokenizer, Request request)
    : request_(std::move(request)),
      parser_(tokenizer, request_.start),
      matcher_(request_.stop_strings) {}

void Session::OnPrefillStarted(absl::Time now) {
  if (!prefill_started_.has_value()) prefill_started_ = now;
}

Session::Output Session::Push(std::span<const TokenId> tokens, absl::Time now) {
  Output output;
  if (finish_.has_value() || tokens.empty()) return output;
  if (!first_token_.has_value()) first_token_ = now;
  last_token_ = now;
  for (const TokenId token : tokens) {
    PushToken(token, output);
    if (finish_.has_value()) break;
  }
  return output;
}

Session::Output Session::End() {
  Output output;
  if (finish_.has_value()) return output;
  OutputParser::Delta delta = parser_.Flush();
  output.thinking = std::move(delta.thinking);
  AppendAnswer(delta.text, output);
  if (finish_.has_value()) return output;  // A stop string at the very end.
  output.text += matcher_.Flush();
  finish_ = Finish::kLength;
  return output;
}

Session::Timings Session::TimingsAt(
    absl::Time now, const std::optional<GroupTimes>& group) const {
  Timings timings;
  timings.total = now - request_.arrival;
  timings.tokenize = request_.tokenize_time;
  const absl::Time first = first_token_.value_or(now);
  absl::Time prefill = prefill_started_.value_or(first);
  if (group.has_value() && started_.has_value())
    prefill = std::min(*started_ + group->queued, first);
  timings.queue = std::max(prefill - request_.arrival - timings.tokenize,
                           absl::ZeroDuration());
  timings.prefill = first - prefill;
  timings.decode = last_token_.value_or(first) - first;
  return timings;
}

void Session::PushToken(TokenId token, Output& output) {
  ++output.num_tokens;
  ++output_tokens_;
  if (std::find(request_.stop_tokens.begin(), request_.stop_tokens.end(),
                token) != request_.stop_tokens.end()) {
    stop_token_ = token;
    Output rest = End();
    output.text += rest.text;
    output.thinking += rest.thinking;
    // What was held back may have completed a stop string; that came first.
    if (finish_ != Finish::kStopString) finish_ = Finish::kStopToken;
    return;
  }
  const bool was_thinking = parser_.in_thinking();
  OutputParser::Delta delta = parser_.Push(token);
  if (was_thinking || parser_.in_thinking()) ++thinking_tokens_;
  output.thinking += delta.thinking;
  AppendAnswer(delta.text, output);
}

void Session::AppendAnswer(const std::string& text, Output& output) {
  if (text.empty()) return;
  StopMatcher::Output matched = matcher_.Push(text);
  output.text += matched.text;
  if (matched.stop < 0) return;
  stop_string_ = matched.stop;
  finish_ = Finish::kStopString;
}

}  // namespace lapidary
