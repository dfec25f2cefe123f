#include "router/text/tool_format.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace lapidary {
namespace {

enum class KeyStyle { kBare, kQuoted };

// Which keys of an object are properties.
enum class PropertyKeys { kAll, kNonStandard };

// Keys of a schema that are no properties, where the properties of an object
// stand beside them.
constexpr absl::string_view kStandardKeys[] = {
    "description", "type", "properties", "required", "nullable"};

void WriteKey(absl::string_view key, KeyStyle style, PromptWriter& out) {
  if (style == KeyStyle::kQuoted) {
    out.Quoted(key);
  } else {
    out.Caller(key);
  }
  out.Template(":");
}

// The template's format_argument.
void WriteValue(const Json& value, KeyStyle style, PromptWriter& out) {
  if (value.is_null()) {
    out.Template("null");
  } else if (value.is_string()) {
    out.Quoted(value.get_ref<const std::string&>());
  } else if (value.is_boolean()) {
    out.Template(value.get<bool>() ? "true" : "false");
  } else if (value.is_object()) {
    out.Template("{");
    Comma comma(out);
    for (const auto& [key, element] : DictSort(value)) {
      comma.Write();
      WriteKey(key, style, out);
      WriteValue(*element, style, out);
    }
    out.Template("}");
  } else if (value.is_array()) {
    out.Template("[");
    Comma comma(out);
    for (const Json& element : value) {
      comma.Write();
      WriteValue(element, style, out);
    }
    out.Template("]");
  } else {
    out.Caller(PythonStr(value));
  }
}

// The elements of an object, without its braces.
void WriteArguments(const Json& arguments, PromptWriter& out) {
  Comma comma(out);
  for (const auto& [key, value] : DictSort(arguments)) {
    comma.Write();
    WriteKey(key, KeyStyle::kBare, out);
    WriteValue(*value, KeyStyle::kBare, out);
  }
}

void WriteRequired(const Json& names, PromptWriter& out) {
  out.Template("required:[");
  Comma comma(out);
  for (const Json& name : names) {
    comma.Write();
    out.Quoted(PythonStr(name));
  }
  out.Template("]");
}

void WriteProperties(const Json& properties, PropertyKeys keys,
                     PromptWriter& out);

void WriteItemsType(const Json& type, PromptWriter& out) {
  out.Template("type:");
  if (type.is_string()) {
    out.Quoted(UpperStr(type));
    return;
  }
  out.Template("[");
  Comma comma(out);
  for (const Json& element : type) {
    comma.Write();
    out.Quoted(UpperStr(element));
  }
  out.Template("]");
}

// The schema of an array's elements.
void WriteItems(const Json& items, PromptWriter& out) {
  out.Template("items:{");
  Comma comma(out);
  for (const auto& [key, value] : DictSort(items)) {
    if (value->is_null()) continue;
    comma.Write();
    if (key == "properties") {
      out.Template("properties:{");
      if (value->is_object()) WriteProperties(*value, PropertyKeys::kAll, out);
      out.Template("}");
    } else if (key == "required") {
      WriteRequired(*value, out);
    } else if (key == "type") {
      WriteItemsType(*value, out);
    } else {
      WriteKey(key, KeyStyle::kBare, out);
      WriteValue(*value, KeyStyle::kQuoted, out);
    }
  }
  out.Template("}");
}

// The properties of an object: in `properties` or, where that is missing,
// beside the schema's own keys.
void WriteObject(const Json& schema, Comma& comma, PromptWriter& out) {
  comma.Write();
  out.Template("properties:{");
  const Json& properties = Get(schema, "properties");
  if (properties.is_object()) {
    WriteProperties(properties, PropertyKeys::kAll, out);
  } else {
    WriteProperties(schema, PropertyKeys::kNonStandard, out);
  }
  out.Template("}");
  const Json& required = Get(schema, "required");
  if (!IsTrue(required)) return;
  comma.Write();
  WriteRequired(required, out);
}

// A schema without its opening brace.  What is no object has no keys.
void WriteSchema(const Json& schema, PromptWriter& out) {
  const Json& type = Get(schema, "type");
  const std::string type_name = type.is_null() && !schema.contains("type")
                                    ? ""  // Undefined, not None.
                                    : UpperStr(type);
  Comma comma(out);
  if (const Json& text = Get(schema, "description"); IsTrue(text)) {
    comma.Write();
    out.Template("description:");
    out.Quoted(PythonStr(text));
  }
  if (const Json& values = Get(schema, "enum");
      type_name == "STRING" && IsTrue(values)) {
    comma.Write();
    out.Template("enum:");
    WriteValue(values, KeyStyle::kQuoted, out);
  }
  if (const Json& items = Get(schema, "items");
      type_name == "ARRAY" && items.is_object() && !items.empty()) {
    comma.Write();
    WriteItems(items, out);
  }
  if (IsTrue(Get(schema, "nullable"))) {
    comma.Write();
    out.Template("nullable:true");
  }
  if (type_name == "OBJECT") WriteObject(schema, comma, out);
  comma.Write();
  out.Template("type:");
  out.Quoted(type_name);
  out.Template("}");
}

// The template's format_parameters.
void WriteProperties(const Json& properties, PropertyKeys keys,
                     PromptWriter& out) {
  Comma comma(out);
  for (const auto& [key, schema] : DictSort(properties)) {
    if (keys == PropertyKeys::kNonStandard &&
        std::find(std::begin(kStandardKeys), std::end(kStandardKeys), key) !=
            std::end(kStandardKeys)) {
      continue;
    }
    comma.Write();
    WriteKey(key, KeyStyle::kBare, out);
    out.Template("{");
    WriteSchema(*schema, out);
  }
}

// `parameters` without a type leaves its brace open, as in the template.
void WriteParameters(const Json& parameters, PromptWriter& out) {
  out.Template(",parameters:{");
  if (const Json& properties = Get(parameters, "properties");
      IsTrue(properties)) {
    out.Template("properties:{");
    WriteProperties(properties, PropertyKeys::kAll, out);
    out.Template("},");
  }
  if (const Json& required = Get(parameters, "required"); IsTrue(required)) {
    WriteRequired(required, out);
    out.Template(",");
  }
  if (const Json& type = Get(parameters, "type"); IsTrue(type)) {
    out.Template("type:");
    out.Quoted(UpperStr(type));
    out.Template("}");
  }
}

// Only a response of type object has its brace closed, as in the template.
void WriteResponseSchema(const Json& response, PromptWriter& out) {
  out.Template(",response:{");
  if (const Json& text = Get(response, "description"); IsTrue(text)) {
    out.Template("description:");
    out.Quoted(PythonStr(text));
    out.Template(",");
  }
  const Json& type = Get(response, "type");
  if (UpperStr(type) == "OBJECT") {
    out.Template("type:");
    out.Quoted("OBJECT");
    out.Template("}");
  }
}

}  // namespace

void WriteToolDeclaration(const Json& tool, PromptWriter& out) {
  const Json& function = Get(tool, "function");
  out.Template("<|tool>declaration:");
  out.Caller(PythonStr(Get(function, "name")));
  out.Template("{description:");
  out.Quoted(function.contains("description")
                 ? PythonStr(Get(function, "description"))
                 : "");
  if (const Json& parameters = Get(function, "parameters");
      IsTrue(parameters)) {
    WriteParameters(parameters, out);
  }
  if (function.contains("response")) {
    WriteResponseSchema(Get(function, "response"), out);
  }
  out.Template("}<tool|>");
}

void WriteToolCall(const Json& call, PromptWriter& out) {
  const Json& function = Get(call, "function");
  out.Template("<|tool_call>call:");
  out.Caller(Get(function, "name").get_ref<const std::string&>());
  out.Template("{");
  const Json& arguments = Get(function, "arguments");
  if (arguments.is_object()) WriteArguments(arguments, out);
  out.Template("}<tool_call|>");
}

void WriteToolResponse(absl::string_view name, const Json& response,
                       PromptWriter& out) {
  out.Template("<|tool_response>response:");
  out.Caller(name);
  out.Template("{");
  if (response.is_object()) {
    WriteArguments(response, out);
  } else {
    out.Template("value:");
    WriteValue(response, KeyStyle::kBare, out);
  }
  out.Template("}<tool_response|>");
}

}  // namespace lapidary
