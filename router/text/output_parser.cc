#include "router/text/output_parser.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

// The first line of a thought channel.
constexpr absl::string_view kLabel = "thought\n";

}  // namespace

OutputParser::OutputParser(const Tokenizer& tokenizer, OutputStart start)
    : tokenizer_(tokenizer),
      channel_begin_(tokenizer.ControlToken("<|channel>")),
      channel_end_(tokenizer.ControlToken("<channel|>")),
      tool_call_begin_(tokenizer.ControlToken("<|tool_call>")),
      tool_call_end_(tokenizer.ControlToken("<tool_call|>")),
      detokenizer_(tokenizer),
      part_(start == OutputStart::kThinking ? Part::kThinking : Part::kAnswer) {
}

OutputParser::Delta OutputParser::Push(TokenId id) {
  Delta delta;
  if (!tokenizer_.IsControl(id)) {
    Append(detokenizer_.Push(id), delta);
    return delta;
  }
  Append(detokenizer_.Flush(), delta);
  if (part_ == Part::kToolCall || id == tool_call_begin_) {
    LeaveThinking();
    absl::StrAppend(&delta.text, tokenizer_.TokenBytes(id));
    part_ = id == tool_call_end_ ? Part::kAnswer : Part::kToolCall;
  } else if (id == channel_begin_) {
    LeaveThinking();
    part_ = Part::kThinking;
    in_label_ = true;
  } else if (id == channel_end_ && part_ == Part::kThinking) {
    LeaveThinking();
    part_ = Part::kAnswer;
  }
  return delta;
}

OutputParser::Delta OutputParser::Flush() {
  Delta delta;
  Append(detokenizer_.Flush(), delta);
  if (!in_label_) absl::StrAppend(&delta.thinking, std::exchange(held_, ""));
  LeaveThinking();
  return delta;
}

void OutputParser::Append(absl::string_view text, Delta& delta) {
  if (part_ == Part::kThinking) {
    AppendThinking(text, delta);
  } else {
    absl::StrAppend(&delta.text, text);
  }
}

void OutputParser::AppendThinking(absl::string_view text, Delta& delta) {
  absl::StrAppend(&held_, text);
  if (in_label_) {
    if (absl::StartsWith(kLabel, held_) && held_.size() < kLabel.size()) return;
    if (absl::StartsWith(held_, kLabel)) held_.erase(0, kLabel.size());
    in_label_ = false;
  }
  const size_t shown = held_.size() - (absl::EndsWith(held_, "\n") ? 1 : 0);
  absl::StrAppend(&delta.thinking, absl::string_view(held_).substr(0, shown));
  held_.erase(0, shown);
}

// What is held is the line break before the end, or a piece of the label.
void OutputParser::LeaveThinking() {
  held_.clear();
  in_label_ = false;
}

}  // namespace lapidary
