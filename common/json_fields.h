// Reads the keys of one object of a JSON document, with errors that name them:
//
//   text_config.hidden_size: needs a whole number from 1 to 16777216, got "x"

#ifndef COMMON_JSON_FIELDS_H_
#define COMMON_JSON_FIELDS_H_

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace lapidary {

// Errors: INVALID_ARGUMENT if `text` is not a JSON object.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text);

// A value as an error shows it: on one line, cut short.
std::string ShowJson(const nlohmann::json& value);

// Borrows the object.  Every error is INVALID_ARGUMENT and names the key with
// its path.
class JsonFields {
 public:
  // REQUIRES: `object` is an object.  `path` comes before each key in errors:
  // "" or "text_config.".
  JsonFields(const nlohmann::json& object, absl::string_view path);

  struct Range {
    int min = std::numeric_limits<int>::min();
    int max = std::numeric_limits<int>::max();
  };

  // The value under `key`, or `fallback` if the key is missing.
  absl::StatusOr<int> Int(const char* key, int fallback, Range range) const;
  absl::StatusOr<bool> Bool(const char* key, bool fallback) const;

  // The value under `key`; empty if it is missing or null.
  absl::StatusOr<std::optional<int>> OptionalInt(const char* key,
                                                 Range range) const;
  absl::StatusOr<std::optional<double>> OptionalNumber(const char* key) const;
  absl::StatusOr<std::optional<bool>> OptionalBool(const char* key) const;
  absl::StatusOr<std::optional<std::string>> OptionalString(
      const char* key) const;
  absl::StatusOr<std::optional<JsonFields>> OptionalObject(
      const char* key) const;

  // One integer or a list of them; empty if the key is missing or null.
  absl::StatusOr<std::vector<int>> Ints(const char* key, Range range) const;

  // Null if the key is missing or its value is null.
  const nlohmann::json* Find(const char* key) const;

  // "KEY: needs `needed`, got VALUE", with the key's path.
  absl::Status Error(const char* key, absl::string_view needed) const;

  const nlohmann::json& object() const { return *object_; }
  const std::string& path() const { return path_; }

 private:
  absl::StatusOr<int> ReadInt(const char* key, const nlohmann::json& value,
                              Range range) const;

  const nlohmann::json* object_;
  std::string path_;
};

}  // namespace lapidary

#endif  // COMMON_JSON_FIELDS_H_
