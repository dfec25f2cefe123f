#include "common/json_fields.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

using nlohmann::json;

constexpr size_t kShownBytes = 60;

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text) {
  json value = json::parse(text.begin(), text.end(), nullptr,
                           /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "needs a JSON object, got ", text.size(), " bytes that are not JSON"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a JSON object, got ", ShowJson(value)));
  }
  return value;
}

std::string ShowJson(const json& value) {
  if (value.is_object()) return "an object";
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true,
                                json::error_handler_t::replace);
  if (text.size() > kShownBytes) {
    text.resize(kShownBytes);
    text += "…";
  }
  return text;
}

JsonFields::JsonFields(const json& object, absl::string_view path)
    : object_(&object), path_(path) {}

const json* JsonFields::Find(const char* key) const {
  const auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

absl::Status JsonFields::Error(const char* key,
                               absl::string_view needed) const {
  const auto it = object_->find(key);
  return absl::InvalidArgumentError(
      absl::StrCat(path_, key, ": needs ", needed, ", got ",
                   it == object_->end() ? "nothing" : ShowJson(*it)));
}

absl::StatusOr<int> JsonFields::ReadInt(const char* key, const json& value,
                                        Range range) const {
  if (value.is_number_integer()) {
    const bool fits =
        value.is_number_unsigned() ? value.get<uint64_t>() <= INT64_MAX : true;
    const int64_t number = fits ? value.get<int64_t>() : INT64_MAX;
    if (number >= range.min && number <= range.max) {
      return static_cast<int>(number);
    }
  }
  return Error(
      key, absl::StrCat("a whole number from ", range.min, " to ", range.max));
}

absl::StatusOr<int> JsonFields::Int(const char* key, int fallback,
                                    Range range) const {
  const auto it = object_->find(key);
  if (it == object_->end()) return fallback;
  return ReadInt(key, *it, range);
}

absl::StatusOr<bool> JsonFields::Bool(const char* key, bool fallback) const {
  const auto it = object_->find(key);
  if (it == object_->end()) return fallback;
  if (!it->is_boolean()) return Error(key, "true or false");
  return it->get<bool>();
}

absl::StatusOr<std::optional<int>> JsonFields::OptionalInt(const char* key,
                                                           Range range) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  return ReadInt(key, *value, range);
}

absl::StatusOr<std::optional<double>> JsonFields::OptionalNumber(
    const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) return Error(key, "a number");
  return value->get<double>();
}

absl::StatusOr<std::optional<bool>> JsonFields::OptionalBool(
    const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) return Error(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::optional<std::string>> JsonFields::OptionalString(
    const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) return Error(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::optional<JsonFields>> JsonFields::OptionalObject(
    const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) return Error(key, "an object");
  return JsonFields(*value, absl::StrCat(path_, key, "."));
}

absl::StatusOr<std::vector<int>> JsonFields::Ints(const char* key,
                                                  Range range) const {
  const json* value = Find(key);
  std::vector<int> ints;
  if (value == nullptr) return ints;
  const bool is_list = value->is_array();
  const size_t count = is_list ? value->size() : 1;
  for (size_t i = 0; i < count; ++i) {
    const absl::StatusOr<int> number =
        ReadInt(key, is_list ? (*value)[i] : *value, range);
    if (!number.ok()) return number.status();
    ints.push_back(*number);
  }
  return ints;
}

}  // namespace lapidary
