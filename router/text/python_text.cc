#include "router/text/python_text.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "router/text/utf8.h"

namespace lapidary {
namespace {

// repr(float): the shortest digits that read back as the same number,
// positional for exponents from -4 to 15.
std::string FloatRepr(double value) {
  char buffer[64];
  const auto format = [&](std::chars_format form) {
    const auto end =
        std::to_chars(buffer, buffer + sizeof(buffer), value, form).ptr;
    return std::string(buffer, end);
  };
  const std::string scientific = format(std::chars_format::scientific);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent > 15) return scientific;
  const std::string fixed = format(std::chars_format::fixed);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

// repr(str).  Characters beyond ASCII are taken as printable.
std::string StringRepr(absl::string_view text) {
  const bool has_single = text.find('\'') != text.npos;
  const char quote = has_single && text.find('"') == text.npos ? '"' : '\'';
  std::string repr(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      repr += {'\\', c};
    } else if (c == '\n') {
      repr += "\\n";
    } else if (c == '\r') {
      repr += "\\r";
    } else if (c == '\t') {
      repr += "\\t";
    } else if (absl::ascii_iscntrl(c)) {
      absl::StrAppendFormat(&repr, "\\x%02x", c);
    } else {
      repr += c;
    }
  }
  return repr + quote;
}

std::string PythonRepr(const Json& value) {
  if (value.is_string()) {
    return StringRepr(value.get_ref<const std::string&>());
  }
  if (value.is_array()) {
    return absl::StrCat("[",
                        absl::StrJoin(value, ", ",
                                      [](std::string* out, const Json& v) {
                                        *out += PythonRepr(v);
                                      }),
                        "]");
  }
  if (value.is_object()) {
    std::vector<std::string> items;
    for (const auto& [key, v] : value.items()) {
      items.push_back(absl::StrCat(StringRepr(key), ": ", PythonRepr(v)));
    }
    return absl::StrCat("{", absl::StrJoin(items, ", "), "}");
  }
  return PythonStr(value);
}

}  // namespace

const Json& Get(const Json& object, absl::string_view key) {
  static const Json* const kNull = new Json();
  if (!object.is_object()) return *kNull;
  const auto it = object.find(std::string(key));
  return it == object.end() ? *kNull : *it;
}

bool IsTrue(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

std::string PythonStr(const Json& value) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return FloatRepr(value.get<double>());
  if (value.is_number()) return value.dump();
  return PythonRepr(value);
}

std::string UpperStr(const Json& value) {
  return absl::AsciiStrToUpper(PythonStr(value));
}

std::vector<std::pair<absl::string_view, const Json*>> DictSort(
    const Json& object) {
  struct Item {
    std::string lower;
    absl::string_view key;
    const Json* value;
  };
  std::vector<Item> items;
  const auto& map = object.get_ref<const Json::object_t&>();
  for (const auto& [key, value] : map) {
    items.push_back({LowerUnicode(key), key, &value});
  }
  std::stable_sort(
      items.begin(), items.end(),
      [](const Item& a, const Item& b) { return a.lower < b.lower; });
  std::vector<std::pair<absl::string_view, const Json*>> sorted;
  for (const Item& item : items) sorted.emplace_back(item.key, item.value);
  return sorted;
}

}  // namespace lapidary
