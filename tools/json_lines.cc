#include "tools/json_lines.h"

#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"

namespace lapidary {

absl::Status AnswerJsonLines(
    std::istream& in, std::ostream& out,
    const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json&)>&
        answer) {
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const auto value = nlohmann::json::parse(line, nullptr, false);
    if (!value.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": needs a JSON object, found ",
                       value.is_discarded() ? "no JSON" : value.type_name()));
    }
    const absl::StatusOr<nlohmann::json> result = answer(value);
    if (!result.ok()) {
      return absl::Status(
          result.status().code(),
          absl::StrCat("line ", number, ": ", result.status().message()));
    }
    out << result->dump() << '\n';
  }
  out.flush();
  return out ? absl::OkStatus()
             : absl::DataLossError("the output cannot be written");
}

int AnswerStandardInput(
    absl::string_view program,
    const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json&)>&
        answer) {
  std::ios::sync_with_stdio(false);
  std::cin.tie(nullptr);
  const absl::Status status = AnswerJsonLines(std::cin, std::cout, answer);
  if (status.ok()) return 0;
  std::cout.flush();
  std::cerr << program << ": " << status.message() << std::endl;
  return 1;
}

}  // namespace lapidary
