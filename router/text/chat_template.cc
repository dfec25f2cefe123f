#include "router/text/chat_template.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "router/text/chat_input_check.h"
#include "router/text/prompt_writer.h"
#include "router/text/python_text.h"
#include "router/text/tool_format.h"
#include "router/text/utf8.h"
#include "xxhash.h"

namespace lapidary {
namespace {

// Of the templates published on 2026-07-09, without white space at the end.
constexpr XXH128_hash_t kLargeTemplateDigest = {.low64 = 0x49211C35680CF46D,
                                                .high64 = 0xF95FC63679D0B4A7};
constexpr XXH128_hash_t kSmallTemplateDigest = {.low64 = 0x40A50D7680C07D5E,
                                                .high64 = 0xD8D0BAFE34D84D15};

// The tool of a result that names none.
constexpr absl::string_view kUnknownTool = "unknown";

// The last thing of a message that decides how the message is closed.
enum class LastItem { kOther, kToolCall, kToolResponse };

const std::string& Text(const Json& value) {
  return value.get_ref<const std::string&>();
}

bool HasRole(const Json& message, absl::string_view role) {
  return Text(Get(message, "role")) == role;
}

// `text` without its thought channels, trimmed.
std::string StripThinking(absl::string_view text) {
  std::string stripped;
  for (const absl::string_view part : absl::StrSplit(text, "<channel|>")) {
    absl::StrAppend(&stripped, part.substr(0, part.find("<|channel>")));
  }
  return std::string(TrimUnicode(stripped));
}

// The placeholder of an image, a sound or a video; empty for a text.
absl::string_view Placeholder(const Json& part) {
  const absl::string_view type = Text(Get(part, "type"));
  if (type == "image" || type == "image_url") return "<|image|>";
  if (type == "audio" || type == "input_audio") return "<|audio|>";
  if (type == "video") return "<|video|>";
  return "";
}

class ChatRenderer {
 public:
  // REQUIRES: CheckChatInput() accepts `input`.
  ChatRenderer(TemplateVariant variant, const ChatInput& input)
      : variant_(variant), input_(input), messages_(input.messages) {}

  RenderedPrompt Render() {
    out_.Template("<bos>");
    WriteSystemBlock();
    FindNeighbours();
    for (size_t i = first_; i < messages_.size(); ++i) {
      if (!HasRole(messages_[i], "tool")) WriteMessage(i);
    }
    if (input_.add_generation_prompt) WriteGenerationPrompt();
    return out_.Take();
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // Thinking switch, system text and tools.
  void WriteSystemBlock() {
    const bool has_system =
        !messages_.empty() &&
        (HasRole(messages_[0], "system") || HasRole(messages_[0], "developer"));
    if (!input_.enable_thinking && !has_system && input_.tools.empty()) return;
    out_.Template("<|turn>system\n");
    if (input_.enable_thinking) out_.Template("<|think|>\n");
    if (has_system) {
      WriteSystemText(Get(messages_[0], "content"));
      first_ = 1;
    }
    for (const Json& tool : input_.tools) WriteToolDeclaration(tool, out_);
    out_.Template("<turn|>\n");
  }

  void WriteSystemText(const Json& content) {
    if (content.is_string()) out_.Caller(TrimUnicode(Text(content)));
    if (!content.is_array()) return;
    for (const Json& part : content) {
      const Json& text = Get(part, "text");
      if (text.is_string()) out_.Caller(TrimUnicode(Text(text)));
      out_.Template(" ");
    }
  }

  // Notes the last user message, and for each message the next one that is not
  // a tool's.
  void FindNeighbours() {
    next_.assign(messages_.size(), kNone);
    size_t next = kNone;
    for (size_t i = messages_.size(); i-- > first_;) {
      next_[i] = next;
      if (!HasRole(messages_[i], "tool")) next = i;
      if (last_user_ == kNone && HasRole(messages_[i], "user")) last_user_ = i;
    }
  }

  void WriteMessage(size_t index) {
    const Json& message = messages_[index];
    const bool is_model = IsModelTurn(message);
    const bool has_calls = !Get(message, "tool_calls").empty();
    last_item_ = LastItem::kOther;
    if (!is_model) {
      out_.Template("<|turn>");
      out_.Caller(Text(Get(message, "role")));
      out_.Template("\n");
    } else if (!after_assistant_) {
      out_.Template("<|turn>model\n");
    }
    WriteReasoning(index);
    for (const Json& call : Get(message, "tool_calls")) {
      WriteToolCall(call, out_);
      last_item_ = LastItem::kToolCall;
    }
    WriteToolResponses(index);
    const bool has_content = WriteContent(message, is_model);
    CloseMessage(index, has_calls, has_content);
    after_assistant_ = HasRole(message, "assistant");
  }

  // A caller may write "model" for the role itself.
  static bool IsModelTurn(const Json& message) {
    return HasRole(message, "assistant") || HasRole(message, "model");
  }

  // The reasoning of the tool loop at hand, and of earlier calls on request.
  void WriteReasoning(size_t index) {
    const Json& message = messages_[index];
    const bool is_current = last_user_ == kNone || index > last_user_;
    const bool is_preserved =
        input_.preserve_thinking && !Get(message, "tool_calls").empty();
    if (!is_current && !is_preserved) return;
    const Json& reasoning = Get(message, "reasoning");
    const Json& text =
        IsTrue(reasoning) ? reasoning : Get(message, "reasoning_content");
    if (!IsTrue(text)) return;
    out_.Template("<|channel>thought\n");
    out_.Caller(Text(text));
    out_.Template("\n<channel|>");
  }

  // Results inside the message or, if there are none, in the tool messages
  // right after it.
  void WriteToolResponses(size_t index) {
    const Json& message = messages_[index];
    for (const Json& response : Get(message, "tool_responses")) {
      const Json& name = Get(response, "name");
      WriteToolResponse(
          IsTrue(name) ? absl::string_view(Text(name)) : kUnknownTool,
          Get(response, "response"), out_);
      last_item_ = LastItem::kToolResponse;
    }
    const Json& calls = Get(message, "tool_calls");
    if (last_item_ == LastItem::kToolResponse || calls.empty()) return;
    absl::flat_hash_map<std::string, absl::string_view> names;  // By call id.
    for (const Json& call : calls) {
      names[Get(call, "id").dump()] = Text(Get(Get(call, "function"), "name"));
    }
    for (size_t i = index + 1;
         i < messages_.size() && HasRole(messages_[i], "tool"); ++i) {
      const Json& name = Get(messages_[i], "name");
      const auto it = names.find(Get(messages_[i], "tool_call_id").dump());
      absl::string_view tool = kUnknownTool;
      if (it != names.end()) {
        tool = it->second;
      } else if (IsTrue(name)) {
        tool = Text(name);
      }
      WriteToolMessage(tool, Get(messages_[i], "content"));
      last_item_ = LastItem::kToolResponse;
    }
  }

  void WriteToolMessage(absl::string_view tool, const Json& content) {
    if (!content.is_array()) {
      WriteToolResponse(tool, content, out_);
      return;
    }
    std::string text;
    for (const Json& part : content) {
      if (Text(Get(part, "type")) == "text") text += Text(Get(part, "text"));
    }
    WriteToolResponse(tool, text, out_);
    for (const Json& part : content) out_.Template(Placeholder(part));
  }

  // Returns whether there is any.
  bool WriteContent(const Json& message, bool is_model) {
    bool has_content = false;
    const auto write_text = [&](absl::string_view text) {
      const std::string shown =
          is_model ? StripThinking(text) : std::string(TrimUnicode(text));
      out_.Caller(shown);
      has_content |= !shown.empty();
    };
    const Json& content = Get(message, "content");
    if (content.is_string()) write_text(Text(content));
    if (!content.is_array()) return has_content;
    for (const Json& part : content) {
      const absl::string_view placeholder = Placeholder(part);
      if (placeholder.empty()) {
        write_text(Text(Get(part, "text")));
      } else {
        out_.Template(placeholder);
        has_content = true;
      }
    }
    return has_content;
  }

  void CloseMessage(size_t index, bool has_calls, bool has_content) {
    const bool has_responses = last_item_ == LastItem::kToolResponse;
    const bool is_last = next_[index] == kNone;
    const bool continues = IsModelTurn(messages_[index]) && !is_last &&
                           HasRole(messages_[next_[index]], "assistant") &&
                           (!has_calls || has_responses);
    if (last_item_ == LastItem::kToolCall) {
      out_.Template("<|tool_response>");
    } else if (!continues && (!has_responses || has_content || !is_last)) {
      out_.Template("<turn|>\n");
    }
  }

  void WriteGenerationPrompt() {
    if (last_item_ == LastItem::kOther) {
      out_.Template("<|turn>model\n");
      if (variant_ == TemplateVariant::kLarge && !input_.enable_thinking) {
        out_.Template("<|channel>thought\n<channel|>");
      }
    } else if (last_item_ == LastItem::kToolResponse &&
               input_.enable_thinking) {
      out_.Template("<|channel>thought\n");
      out_.BeginThinking();
    }
  }

  const TemplateVariant variant_;
  const ChatInput& input_;
  const Json& messages_;
  size_t first_ = 0;  // Message after the system block.
  size_t last_user_ = kNone;
  std::vector<size_t> next_;  // By message: the next that is not a tool's.
  LastItem last_item_ = LastItem::kOther;
  bool after_assistant_ = false;  // So far, tool messages aside.
  PromptWriter out_;
};

}  // namespace

absl::StatusOr<RenderedPrompt> RenderChat(TemplateVariant variant,
                                          const ChatInput& input) {
  RETURN_IF_ERROR(CheckChatInput(input));
  return ChatRenderer(variant, input).Render();
}

std::optional<TemplateVariant> VariantOfTemplate(absl::string_view jinja) {
  jinja = absl::StripTrailingAsciiWhitespace(jinja);
  const XXH128_hash_t digest = XXH3_128bits(jinja.data(), jinja.size());
  if (XXH128_isEqual(digest, kLargeTemplateDigest)) {
    return TemplateVariant::kLarge;
  }
  if (XXH128_isEqual(digest, kSmallTemplateDigest)) {
    return TemplateVariant::kSmall;
  }
  return std::nullopt;
}

}  // namespace lapidary
