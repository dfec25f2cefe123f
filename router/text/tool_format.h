// How tools, calls and results are written for the model:
//
//   declaration:NAME{description:<|"|>…<|"|>,parameters:{properties:{…},…}}
//   call:NAME{city:<|"|>Paris<|"|>,days:3}
//   response:NAME{value:<|"|>18C<|"|>}
//
// Strings stand between <|"|>, keys are sorted without regard to case.

#ifndef ROUTER_TEXT_TOOL_FORMAT_H_
#define ROUTER_TEXT_TOOL_FORMAT_H_

#include "absl/strings/string_view.h"
#include "router/text/prompt_writer.h"
#include "router/text/python_text.h"  // Json

namespace lapidary {

// An element of ChatInput::tools.
//
// REQUIRES: CheckChatInput() accepts it.  So for all functions here.
void WriteToolDeclaration(const Json& tool, PromptWriter& out);

// An element of a message's `tool_calls`.
void WriteToolCall(const Json& call, PromptWriter& out);

// What the tool `name` returned: an object, or any other value.
void WriteToolResponse(absl::string_view name, const Json& response,
                       PromptWriter& out);

}  // namespace lapidary

#endif  // ROUTER_TEXT_TOOL_FORMAT_H_
