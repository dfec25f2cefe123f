#include "worker/parallel/wire.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;

TEST(WireTest, ReadsWhatWasWritten) {
  WireWriter writer;
  writer.PutInt(-5);
  writer.PutString(std::string("a\0b", 3));
  writer.PutString("");
  WireReader reader(writer.bytes());
  EXPECT_EQ(reader.Int(), -5);
  EXPECT_FALSE(reader.done());
  EXPECT_EQ(reader.String(), std::string("a\0b", 3));
  EXPECT_EQ(reader.String(), "");
  EXPECT_TRUE(reader.done());
}

TEST(WireTest, ReadsNothingBeyondTheEnd) {
  WireReader reader("abc");
  EXPECT_EQ(reader.Int(), 0);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.String(), "");
}

TEST(WireTest, RefusesAStringLongerThanTheRest) {
  for (const int64_t size : {int64_t{4}, INT64_MAX, int64_t{-1}}) {
    WireWriter writer;
    writer.PutInt(size);
    WireReader reader(writer.bytes());
    EXPECT_EQ(reader.String(), "");
    EXPECT_FALSE(reader.ok());
  }
}

TEST(WireTest, RefusesACountBeyondItsBound) {
  WireWriter writer;
  writer.PutInt(3);
  EXPECT_EQ(WireReader(writer.bytes()).Count(3), 3);
  WireReader reader(writer.bytes());
  EXPECT_EQ(reader.Count(2), 0);
  EXPECT_FALSE(reader.ok());
}

TEST(WireTest, BringsAStringOrAnError) {
  absl::StatusOr<std::string> result;
  ASSERT_OK(DecodeResult(EncodeResult("fine"), result));
  EXPECT_THAT(result, IsOkAndHolds("fine"));
  ASSERT_OK(DecodeResult(EncodeResult(absl::NotFoundError("where")), result));
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kNotFound, "where"));
  EXPECT_THAT(DecodeResult("garbage", result),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(WireTest, BringsAListOfItsSize) {
  const std::string bytes = EncodeList({"a", "", "c"});
  EXPECT_THAT(DecodeList(bytes, 3), IsOkAndHolds(ElementsAre("a", "", "c")));
  EXPECT_FALSE(DecodeList(bytes, 2).ok());
  EXPECT_FALSE(DecodeList(bytes + "x", 3).ok());
  EXPECT_FALSE(DecodeList("", 3).ok());
}

}  // namespace
}  // namespace lapidary
