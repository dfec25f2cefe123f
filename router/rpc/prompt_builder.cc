#include "router/rpc/prompt_builder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"
#include "router/text/chat_template.h"

namespace lapidary {
namespace {

// How deep the brackets of `json` nest, strings apart.
int JsonDepth(absl::string_view json) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

absl::StatusOr<nlohmann::json> ParseObject(const std::string& json,
                                           const std::string& path) {
  if (JsonDepth(json) > kMaxJsonDepth) {
    return BadRequestError(
        {{path, absl::StrCat("expected at most ", kMaxJsonDepth,
                             " levels of JSON, got more")}});
  }
  nlohmann::json object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) {
    return BadRequestError(
        {{path, absl::StrCat("expected a JSON object, got ",
                             object.is_discarded() ? "text that is not JSON"
                                                   : object.type_name())}});
  }
  return object;
}

absl::StatusOr<nlohmann::json> MessageJson(const v1::Message& message,
                                           const std::string& path) {
  nlohmann::json json = {{"role", message.role()}};
  if (message.content_size() == 1) {
    json["content"] = message.content(0).text();
  } else if (!message.content().empty()) {
    nlohmann::json& parts = json["content"] = nlohmann::json::array();
    for (const v1::ContentPart& part : message.content())
      parts.push_back({{"type", "text"}, {"text", part.text()}});
  }
  if (!message.reasoning().empty()) json["reasoning"] = message.reasoning();
  if (!message.name().empty()) json["name"] = message.name();
  if (!message.tool_call_id().empty())
    json["tool_call_id"] = message.tool_call_id();
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    const v1::ToolCall& call = message.tool_calls(i);
    nlohmann::json arguments = nlohmann::json::object();
    if (!call.arguments_json().empty()) {
      ASSIGN_OR_RETURN(arguments,
                       ParseObject(call.arguments_json(),
                                   absl::StrCat(path, ".tool_calls[", i,
                                                "].arguments_json")));
    }
    json["tool_calls"].push_back(
        {{"id", call.id()},
         {"type", "function"},
         {"function",
          {{"name", call.name()}, {"arguments", std::move(arguments)}}}});
  }
  return json;
}

absl::StatusOr<ChatInput> MakeChatInput(const v1::Conversation& conversation) {
  ChatInput input;
  input.enable_thinking = conversation.enable_thinking();
  input.preserve_thinking = conversation.preserve_thinking();
  for (int i = 0; i < conversation.messages_size(); ++i) {
    ASSIGN_OR_RETURN(
        nlohmann::json message,
        MessageJson(conversation.messages(i),
                    absl::StrCat("conversation.messages[", i, "]")));
    input.messages.push_back(std::move(message));
  }
  for (int i = 0; i < conversation.tools_json_size(); ++i) {
    ASSIGN_OR_RETURN(
        nlohmann::json tool,
        ParseObject(conversation.tools_json(i),
                    absl::StrCat("conversation.tools_json[", i, "]")));
    input.tools.push_back(std::move(tool));
  }
  return input;
}

// The template's own error begins with a path inside the conversation.
absl::Status TemplateError(const absl::Status& error) {
  const std::string message(error.message());
  const size_t colon = message.find(": ");
  if (colon == std::string::npos || message.find(' ') < colon)
    return BadRequestError({{"conversation", message}});
  return BadRequestError(
      {{absl::StrCat("conversation.", message.substr(0, colon)),
        message.substr(colon + 2)}});
}

absl::StatusOr<Prompt> BuildChatPrompt(const v1::Conversation& conversation,
                                       const ServedModel& model) {
  ASSIGN_OR_RETURN(const ChatInput input, MakeChatInput(conversation));
  const auto rendered = RenderChat(model.template_variant, input);
  if (!rendered.ok()) return TemplateError(rendered.status());
  return Prompt{model.tokenizer->Encode(rendered->text, rendered->literal),
                rendered->starts_in_thinking ? OutputStart::kThinking
                                             : OutputStart::kAnswer};
}

Prompt BuildTextPrompt(const v1::RawText& raw, const ServedModel& model) {
  std::vector<TextSpan> literal;
  if (!raw.parse_control_tokens()) literal.push_back({0, raw.text().size()});
  Prompt prompt{model.tokenizer->Encode(raw.text(), literal)};
  const bool has_bos =
      !prompt.tokens.empty() && prompt.tokens.front() == model.bos_token;
  if (!raw.omit_bos() && !has_bos)
    prompt.tokens.insert(prompt.tokens.begin(), model.bos_token);
  return prompt;
}

}  // namespace

absl::StatusOr<Prompt> BuildPrompt(const v1::GenerateRequest& request,
                                   const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kConversation:
      return BuildChatPrompt(request.conversation(), model);
    case v1::GenerateRequest::kText:
      return BuildTextPrompt(request.text(), model);
    case v1::GenerateRequest::kTokenIds:
      return Prompt{
          {request.token_ids().ids().begin(), request.token_ids().ids().end()}};
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return BadRequestError({{"prompt", "expected a prompt, got none"}});
}

}  // namespace lapidary
