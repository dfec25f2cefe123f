// Programs that read one JSON value a line and answer each with one.

#ifndef TOOLS_JSON_LINES_H_
#define TOOLS_JSON_LINES_H_

#include <functional>
#include <istream>
#include <ostream>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace lapidary {

// Writes `answer` of each line of `in` to `out`, a line each, until one fails.
//
// Errors:
//   INVALID_ARGUMENT, ...  a line is no JSON object, or `answer` refuses it.
//                          The message begins with the line's number, counted
//                          from 1.
//   DATA_LOSS              `out` cannot be written.
absl::Status AnswerJsonLines(
    std::istream& in, std::ostream& out,
    const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json&)>&
        answer);

// Runs AnswerJsonLines() on standard input and output.  Returns the exit code:
// 0, or 1 after an error, which stands in one line on standard error, after the
// name of the `program`.
int AnswerStandardInput(
    absl::string_view program,
    const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json&)>&
        answer);

}  // namespace lapidary

#endif  // TOOLS_JSON_LINES_H_
