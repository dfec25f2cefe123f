// Splits what the model writes into its thoughts and its answer.
//
//   <|channel>thought\n REASONING \n<channel|> ANSWER <turn|>
//
//   REASONING  -> Delta::thinking   label and the line break before the end
//   gone ANSWER     -> Delta::text       control tokens gone
//
// A tool call, <|tool_call>call:NAME{…}<tool_call|>, stands in the answer
// verbatim, its control tokens included.

#ifndef ROUTER_TEXT_OUTPUT_PARSER_H_
#define ROUTER_TEXT_OUTPUT_PARSER_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "common/tokens.h"
#include "router/text/detokenizer.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// Where an output begins: RenderedPrompt::starts_in_thinking.
enum class OutputStart { kAnswer, kThinking };

// Takes the output token by token.
//
// An empty thought channel, which large models write with thinking off, leaves
// no trace.  A channel that never ends is thinking to the end, except that a
// tool call ends it.  Text comes out as whole UTF-8 characters.
//
// Thread-compatible.  Must not outlive the tokenizer.
class OutputParser {
 public:
  struct Delta {
    std::string text;      // Of the answer.
    std::string thinking;  // Of the thought channel.  Precedes `text`.
  };

  OutputParser(const Tokenizer& tokenizer, OutputStart start);

  // REQUIRES: 0 <= id < tokenizer.vocab_size().
  Delta Push(TokenId id);

  // What was held back, at the end of the output.
  Delta Flush();

  // Whether the next token belongs to the thought channel.
  bool in_thinking() const { return part_ == Part::kThinking; }

 private:
  enum class Part { kAnswer, kThinking, kToolCall };

  void Append(absl::string_view text, Delta& delta);
  void AppendThinking(absl::string_view text, Delta& delta);
  void LeaveThinking();

  const Tokenizer& tokenizer_;
  const std::optional<TokenId> channel_begin_;
  const std::optional<TokenId> channel_end_;
  const std::optional<TokenId> tool_call_begin_;
  const std::optional<TokenId> tool_call_end_;
  Detokenizer detokenizer_;
  Part part_;
  bool in_label_ = false;  // Of the thought channel, not complete yet.
  std::string held_;       // Thinking that may be the label or the last break.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_OUTPUT_PARSER_H_
