// What the published templates take from Python and Jinja: how a value prints,
// which values are false, and in which order a mapping is walked.

#ifndef ROUTER_TEXT_PYTHON_TEXT_H_
#define ROUTER_TEXT_PYTHON_TEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace lapidary {

using Json = nlohmann::json;

// The value of `key`, or null if `object` has none or is no object.
const Json& Get(const Json& object, absl::string_view key);

// Python's bool(): null, false, 0, "", [] and {} are false.
bool IsTrue(const Json& value);

// Python's str(): "None", "True", "1.0", "1e-07", "['a', 'b']".
std::string PythonStr(const Json& value);

// str() in upper case, ASCII letters only: for the names of JSON types.
std::string UpperStr(const Json& value);

// Jinja's dictsort: by key without regard to case; keys that differ in case
// alone in the order of their bytes.  The entries point into `object`.
//
// REQUIRES: object.is_object().
std::vector<std::pair<absl::string_view, const Json*>> DictSort(
    const Json& object);

}  // namespace lapidary

#endif  // ROUTER_TEXT_PYTHON_TEXT_H_
