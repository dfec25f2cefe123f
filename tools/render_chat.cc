// Chats to prompts, as JSON lines.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/command_line.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"
#include "router/text/chat_template.h"
#include "tools/json_lines.h"

namespace lapidary {
namespace {

using Json = nlohmann::json;

constexpr char kUsage[] =
    R"(reads chats, a JSON object a line:

  {"template": "large" or "small", "messages": […], "tools": […] or null,
   "enable_thinking": …, "preserve_thinking": …, "add_generation_prompt": …}

and writes {"rendered": …} for each, or {"error": …} where the template refuses
it.  It has no flags.  A line that is no such object ends the program with exit
code 1 and a message that names the line.)";

absl::StatusOr<TemplateVariant> ReadVariant(const Json& line) {
  const Json name = line.value("template", Json());
  if (name == "large") return TemplateVariant::kLarge;
  if (name == "small") return TemplateVariant::kSmall;
  return absl::InvalidArgumentError(absl::StrCat(
      "template: needs \"large\" or \"small\", found ", name.dump()));
}

absl::StatusOr<bool> ReadBool(const Json& line, const std::string& key,
                              bool otherwise) {
  const Json value = line.value(key, Json(otherwise));
  if (value.is_boolean()) return value.get<bool>();
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": needs true or false, found ", value.dump()));
}

absl::StatusOr<Json> Render(const Json& line) {
  ASSIGN_OR_RETURN(const TemplateVariant variant, ReadVariant(line));
  ChatInput input;
  if (!line.contains("messages")) {
    return absl::InvalidArgumentError("messages: needs an array");
  }
  input.messages = line["messages"];
  input.tools = line.value("tools", Json());
  ASSIGN_OR_RETURN(input.enable_thinking,
                   ReadBool(line, "enable_thinking", false));
  ASSIGN_OR_RETURN(input.preserve_thinking,
                   ReadBool(line, "preserve_thinking", false));
  ASSIGN_OR_RETURN(input.add_generation_prompt,
                   ReadBool(line, "add_generation_prompt", true));
  const absl::StatusOr<RenderedPrompt> prompt = RenderChat(variant, input);
  if (!prompt.ok()) {
    return Json{{"error", std::string(prompt.status().message())}};
  }
  return Json{{"rendered", prompt->text}};
}

int Main(int argc, char** argv) {
  ParseFlags(kUsage, argc, argv);
  return AnswerStandardInput("render_chat", Render);
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
