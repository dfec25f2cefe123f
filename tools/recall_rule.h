// What the recall checkpoint answers, by its rule.
//
// The model finds where the last 7 tokens stood before and repeats what
// followed them, token by token, to the end of that line.

#ifndef TOOLS_RECALL_RULE_H_
#define TOOLS_RECALL_RULE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// Tokens that the model compares.
inline constexpr int kRecallTokens = 7;

// What the model answers to `question` after `document`.
//
// Errors:
//   INVALID_ARGUMENT  the question has less than 7 tokens.
//   NOT_FOUND         its last 7 tokens do not stand in the document, or a line
//                     ends there.
//   FAILED_PRECONDITION  they stand there more than once, with different
//                     continuations.
absl::StatusOr<std::string> RecallAnswer(const Tokenizer& tokenizer,
                                         absl::string_view document,
                                         absl::string_view question);

}  // namespace lapidary

#endif  // TOOLS_RECALL_RULE_H_
