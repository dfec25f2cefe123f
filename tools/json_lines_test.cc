#include "tools/json_lines.h"

#include <sstream>
#include <string>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::StartsWith;
using Json = nlohmann::json;

absl::StatusOr<Json> Half(const Json& line) {
  if (line["n"].get<int>() % 2 != 0) {
    return absl::InvalidArgumentError("needs an even number");
  }
  return Json{{"half", line["n"].get<int>() / 2}};
}

TEST(JsonLinesTest, AnswersLineByLine) {
  std::istringstream in("{\"n\": 2}\n{\"n\": 8}\n");
  std::ostringstream out;
  EXPECT_OK(AnswerJsonLines(in, out, Half));
  EXPECT_EQ(out.str(), "{\"half\":1}\n{\"half\":4}\n");
}

TEST(JsonLinesTest, NamesTheLineThatIsRefused) {
  std::istringstream in("{\"n\": 2}\n{\"n\": 3}\n{\"n\": 4}\n");
  std::ostringstream out;
  EXPECT_THAT(AnswerJsonLines(in, out, Half),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "line 2: needs an even number"));
  EXPECT_EQ(out.str(), "{\"half\":1}\n");
}

TEST(JsonLinesTest, NamesTheLineThatIsNoJsonObject) {
  for (const std::string bad : {"", "{", "[1]", "{\"n\": \"\xFF\"}"}) {
    std::istringstream in("{\"n\": 2}\n" + bad + "\n");
    std::ostringstream out;
    EXPECT_THAT(AnswerJsonLines(in, out, Half),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         StartsWith("line 2: needs a JSON object, found ")));
  }
}

}  // namespace
}  // namespace lapidary
