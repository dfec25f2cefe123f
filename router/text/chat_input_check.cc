#include "router/text/chat_input_check.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "router/text/python_text.h"

namespace lapidary {
namespace {

constexpr absl::string_view kPartTypes[] = {"text",  "image",       "image_url",
                                            "audio", "input_audio", "video"};

// A value and where it stands: a chain from the value up, spelled only for an
// error.
class Field {
 public:
  Field(const Json& root, absl::string_view name)
      : value_(root), parent_(nullptr), name_(name) {}

  const Json& value() const { return value_; }
  Field operator[](absl::string_view key) const {
    return Field(Get(value_, key), this, key);
  }
  // REQUIRES: the value is an array with this element.
  Field operator[](size_t index) const {
    return Field(value_[index], this, "", index);
  }

  std::string Path() const {
    if (parent_ == nullptr) return std::string(name_);
    return name_.empty() ? absl::StrCat(parent_->Path(), "[", index_, "]")
                         : absl::StrCat(parent_->Path(), ".", name_);
  }

  absl::Status Error(absl::string_view needed) const {
    const absl::string_view found =
        value_.is_null() ? "nothing" : value_.type_name();
    return absl::InvalidArgumentError(
        absl::StrCat(Path(), ": needs ", needed, ", found ", found));
  }

  absl::Status NeedsArrayIfSet() const {
    return value_.is_null() || value_.is_array() ? absl::OkStatus()
                                                 : Error("an array");
  }
  absl::Status NeedsObject() const {
    return value_.is_object() ? absl::OkStatus() : Error("an object");
  }
  absl::Status NeedsString() const {
    return value_.is_string() ? absl::OkStatus() : Error("a string");
  }
  absl::Status NeedsStringIfSet() const {
    return value_.is_null() ? absl::OkStatus() : NeedsString();
  }

 private:
  Field(const Json& value, const Field* parent, absl::string_view name,
        size_t index = 0)
      : value_(value), parent_(parent), name_(name), index_(index) {}

  const Json& value_;
  const Field* parent_;     // Null for the root.
  absl::string_view name_;  // Empty for an element of an array.
  size_t index_ = 0;
};

absl::Status CheckDepth(const Json& value, const Field& field, int depth) {
  if (!value.is_structured()) return absl::OkStatus();
  if (depth == kMaxChatJsonDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat(field.Path(), ": needs at most ", kMaxChatJsonDepth,
                     " levels of nesting"));
  }
  for (const Json& element : value) {
    RETURN_IF_ERROR(CheckDepth(element, field, depth + 1));
  }
  return absl::OkStatus();
}

absl::Status CheckPart(const Field& part) {
  RETURN_IF_ERROR(part.NeedsObject());
  const Field type = part["type"];
  RETURN_IF_ERROR(type.NeedsString());
  const auto& name = type.value().get_ref<const std::string&>();
  if (std::find(std::begin(kPartTypes), std::end(kPartTypes), name) ==
      std::end(kPartTypes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(type.Path(), ": needs one of ",
                     absl::StrJoin(kPartTypes, ", "), ", found ", name));
  }
  return name == "text" ? part["text"].NeedsString()
                        : part["text"].NeedsStringIfSet();
}

// Messages of the role "tool" may contain a number or a truth value.
absl::Status CheckContent(const Field& content, bool is_tool) {
  const Json& value = content.value();
  if (value.is_null() || value.is_string()) return absl::OkStatus();
  if (is_tool && value.is_primitive()) return absl::OkStatus();
  if (!value.is_array()) return content.Error("a string or an array of parts");
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(CheckPart(content[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckToolCall(const Field& call) {
  RETURN_IF_ERROR(call.NeedsObject());
  const Field function = call["function"];
  RETURN_IF_ERROR(function.NeedsObject());
  RETURN_IF_ERROR(function["name"].NeedsString());
  if (call["id"].value().is_structured()) return call["id"].Error("a string");
  const Field arguments = function["arguments"];
  if (arguments.value().is_object() ||
      (arguments.value().is_null() && function.value().contains("arguments"))) {
    return CheckDepth(arguments.value(), arguments, 0);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      arguments.Path(),
      ": chat_template: tool_calls[].function.arguments must be a JSON object "
      "(mapping), not a string. Deserialize arguments before passing to the "
      "template."));
}

absl::Status CheckToolResponse(const Field& response) {
  RETURN_IF_ERROR(response.NeedsObject());
  RETURN_IF_ERROR(response["name"].NeedsStringIfSet());
  const Field value = response["response"];
  if (!response.value().contains("response")) return value.Error("a value");
  return CheckDepth(value.value(), value, 0);
}

absl::Status CheckMessage(const Field& message) {
  RETURN_IF_ERROR(message.NeedsObject());
  RETURN_IF_ERROR(message["role"].NeedsString());
  RETURN_IF_ERROR(
      CheckContent(message["content"], message["role"].value() == "tool"));
  for (const char* key : {"reasoning", "reasoning_content", "name"}) {
    RETURN_IF_ERROR(message[key].NeedsStringIfSet());
  }
  if (message["tool_call_id"].value().is_structured()) {
    return message["tool_call_id"].Error("a string");
  }
  const Field calls = message["tool_calls"];
  RETURN_IF_ERROR(calls.NeedsArrayIfSet());
  for (size_t i = 0; i < calls.value().size(); ++i) {
    RETURN_IF_ERROR(CheckToolCall(calls[i]));
  }
  const Field responses = message["tool_responses"];
  RETURN_IF_ERROR(responses.NeedsArrayIfSet());
  for (size_t i = 0; i < responses.value().size(); ++i) {
    RETURN_IF_ERROR(CheckToolResponse(responses[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckProperties(const Field& properties);

absl::Status CheckItems(const Field& items) {
  const Json& type = items["type"].value();
  if (!type.is_null() && !type.is_string() && !type.is_array()) {
    return items["type"].Error("a string or an array of strings");
  }
  RETURN_IF_ERROR(items["required"].NeedsArrayIfSet());
  const Field properties = items["properties"];
  return properties.value().is_object() ? CheckProperties(properties)
                                        : absl::OkStatus();
}

absl::Status CheckSchema(const Field& schema) {
  const std::string type = UpperStr(schema["type"].value());
  if (type == "ARRAY" && schema["items"].value().is_object()) {
    return CheckItems(schema["items"]);
  }
  if (type != "OBJECT") return absl::OkStatus();
  if (IsTrue(schema["required"].value())) {
    RETURN_IF_ERROR(schema["required"].NeedsArrayIfSet());
  }
  const Field properties = schema["properties"];
  return CheckProperties(properties.value().is_object() ? properties : schema);
}

absl::Status CheckProperties(const Field& properties) {
  for (const auto& [key, value] :
       properties.value().get_ref<const Json::object_t&>()) {
    RETURN_IF_ERROR(CheckSchema(properties[absl::string_view(key)]));
  }
  return absl::OkStatus();
}

absl::Status CheckTool(const Field& tool) {
  RETURN_IF_ERROR(tool.NeedsObject());
  const Field function = tool["function"];
  RETURN_IF_ERROR(function.NeedsObject());
  RETURN_IF_ERROR(CheckDepth(function.value(), function, 0));
  RETURN_IF_ERROR(function["name"].NeedsString());
  const Field parameters = function["parameters"];
  if (!IsTrue(parameters.value())) return absl::OkStatus();
  RETURN_IF_ERROR(parameters.NeedsObject());
  if (IsTrue(parameters["required"].value())) {
    RETURN_IF_ERROR(parameters["required"].NeedsArrayIfSet());
  }
  const Field properties = parameters["properties"];
  if (!IsTrue(properties.value())) return absl::OkStatus();
  RETURN_IF_ERROR(properties.NeedsObject());
  return CheckProperties(properties);
}

}  // namespace

absl::Status CheckChatInput(const ChatInput& input) {
  const Field messages(input.messages, "messages");
  if (!input.messages.is_array()) return messages.Error("an array");
  for (size_t i = 0; i < input.messages.size(); ++i) {
    RETURN_IF_ERROR(CheckMessage(messages[i]));
  }
  const Field tools(input.tools, "tools");
  RETURN_IF_ERROR(tools.NeedsArrayIfSet());
  for (size_t i = 0; i < input.tools.size(); ++i) {
    RETURN_IF_ERROR(CheckTool(tools[i]));
  }
  return absl::OkStatus();
}

}  // namespace lapidary
