// Gemma 4's chat template: messages and tools to the text that the model reads.
//
//   <bos><|turn>system\n … <turn|>\n<|turn>user\n … <turn|>\n<|turn>model\n
//
// Two templates are published; they differ in the generation prompt alone,
// where the large one closes an empty thought channel when thinking is off.

#ifndef ROUTER_TEXT_CHAT_TEMPLATE_H_
#define ROUTER_TEXT_CHAT_TEMPLATE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "router/text/tokenizer.h"  // TextSpan

namespace lapidary {

enum class TemplateVariant {
  kLarge,  // 12B, 26B-A4B, 31B.
  kSmall,  // E2B, E4B.
};

struct ChatInput {
  // An array of messages in the OpenAI form: {"role", "content", "reasoning",
  // "tool_calls", "tool_call_id", "name", …}.  A text is a string or an array
  // of parts {"type": "text", "text": …}.
  nlohmann::json messages = nlohmann::json::array();
  // An array of {"type": "function", "function": {…}}, or null.
  nlohmann::json tools = nullptr;
  bool enable_thinking = false;
  bool preserve_thinking = false;
  bool add_generation_prompt = true;
};

struct RenderedPrompt {
  std::string text;
  // The parts of `text` that came from the caller (contents, reasoning, names,
  // descriptions, arguments), ascending and disjoint.  The rest is the
  // template's, control tokens included.
  std::vector<TextSpan> literal;
  // The prompt ends inside a thought channel: the output begins in it.
  bool starts_in_thinking = false;
};

// Renders byte for byte what the published template renders, except that keys
// of an object that differ in case alone stand in the order of their bytes, not
// in the order in which they came.
//
// Errors:
//   INVALID_ARGUMENT  something has the wrong JSON type, or the template
//   refuses
//                     it.  The message begins with the path of the field, such
//                     as `messages[2].tool_calls[0].function.arguments`.
//
// REQUIRES: all strings are UTF-8.
absl::StatusOr<RenderedPrompt> RenderChat(TemplateVariant variant,
                                          const ChatInput& input);

// Which published template `jinja` (the text of a chat_template.jinja) is, by
// digest; white space at its end does not count.  nullopt: neither.
std::optional<TemplateVariant> VariantOfTemplate(absl::string_view jinja);

}  // namespace lapidary

#endif  // ROUTER_TEXT_CHAT_TEMPLATE_H_
