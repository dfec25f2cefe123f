#include "common/json_fields.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class JsonFieldsTest : public ::testing::Test {
 protected:
  const nlohmann::json json_ = nlohmann::json::parse(R"({
      "two": 2, "half": 0.5, "big": 18446744073709551615, "yes": true,
      "word": "abc", "nothing": null, "list": [1, 2], "mixed": [1, "x"],
      "inner": {"five": 5}})");
  const JsonFields fields_{json_, "outer."};
};

TEST_F(JsonFieldsTest, ReadsWhatIsThere) {
  EXPECT_THAT(fields_.Int("two", 7, {}), IsOkAndHolds(2));
  EXPECT_THAT(fields_.Bool("yes", false), IsOkAndHolds(true));
  EXPECT_THAT(fields_.OptionalNumber("half"), IsOkAndHolds(0.5));
  EXPECT_THAT(fields_.OptionalNumber("two"), IsOkAndHolds(2.0));
  EXPECT_THAT(fields_.OptionalString("word"), IsOkAndHolds("abc"));
}

TEST_F(JsonFieldsTest, FallsBackWhereAKeyIsMissing) {
  EXPECT_THAT(fields_.Int("three", 7, {}), IsOkAndHolds(7));
  EXPECT_THAT(fields_.OptionalInt("nothing", {}), IsOkAndHolds(std::nullopt));
}

TEST_F(JsonFieldsTest, NamesKeyExpectedAndFound) {
  EXPECT_THAT(
      fields_.Int("word", 0, {.min = 1, .max = 9}),
      StatusIs(kInvalid,
               "outer.word: needs a whole number from 1 to 9, got \"abc\""));
  EXPECT_THAT(fields_.Int("two", 0, {.min = 3, .max = 9}),
              StatusIs(kInvalid, HasSubstr("from 3 to 9, got 2")));
  EXPECT_THAT(fields_.Bool("two", false),
              StatusIs(kInvalid, "outer.two: needs true or false, got 2"));
}

TEST_F(JsonFieldsTest, RefusesWhatIsNoInteger) {
  EXPECT_THAT(fields_.Int("half", 0, {}), StatusIs(kInvalid));
  EXPECT_THAT(fields_.Int("big", 0, {}), StatusIs(kInvalid));
  EXPECT_THAT(fields_.Int("nothing", 0, {}),
              StatusIs(kInvalid, HasSubstr("got null")));
}

TEST_F(JsonFieldsTest, TakesOneIntegerForAListOfOne) {
  EXPECT_THAT(*fields_.Ints("two", {}), ElementsAre(2));
  EXPECT_THAT(*fields_.Ints("list", {}), ElementsAre(1, 2));
  EXPECT_THAT(*fields_.Ints("nothing", {}), IsEmpty());
  EXPECT_THAT(fields_.Ints("mixed", {}), StatusIs(kInvalid));
}

TEST_F(JsonFieldsTest, PathsGrowWithDepth) {
  const auto inner = fields_.OptionalObject("inner");
  ASSERT_OK(inner);
  EXPECT_THAT((*inner)->Bool("five", false),
              StatusIs(kInvalid, HasSubstr("outer.inner.five: ")));
  EXPECT_THAT(fields_.OptionalObject("two"), StatusIs(kInvalid));
}

TEST(ParseJsonObjectTest, RefusesOtherThings) {
  EXPECT_OK(ParseJsonObject("{}"));
  EXPECT_THAT(ParseJsonObject("{"), StatusIs(kInvalid, HasSubstr("1 bytes")));
  EXPECT_THAT(ParseJsonObject("[1]"), StatusIs(kInvalid, HasSubstr("got [1]")));
  EXPECT_THAT(ParseJsonObject(""), StatusIs(kInvalid));
}

TEST(ShowJsonTest, StaysShort) {
  EXPECT_LT(ShowJson(nlohmann::json(std::string(10'000, 'x'))).size(), 100u);
}

}  // namespace
}  // namespace lapidary
