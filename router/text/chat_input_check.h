// Whether a chat has the form that the template can render.

#ifndef ROUTER_TEXT_CHAT_INPUT_CHECK_H_
#define ROUTER_TEXT_CHAT_INPUT_CHECK_H_

#include "absl/status/status.h"
#include "router/text/chat_template.h"

namespace lapidary {

// Deeper values are refused: they would exhaust the stack.
inline constexpr int kMaxChatJsonDepth = 128;

// Errors:
//   INVALID_ARGUMENT  as RenderChat().
absl::Status CheckChatInput(const ChatInput& input);

}  // namespace lapidary

#endif  // ROUTER_TEXT_CHAT_INPUT_CHECK_H_
