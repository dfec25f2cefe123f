#include "common/byte_size.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(ByteSizeTest, ReadsNumbersWithAndWithoutUnit) {
  EXPECT_THAT(ParseByteSize("1000"), IsOkAndHolds(1000));
  EXPECT_THAT(ParseByteSize("7B"), IsOkAndHolds(7));
  EXPECT_THAT(ParseByteSize("1.5KiB"), IsOkAndHolds(1536));
  EXPECT_THAT(ParseByteSize("8GiB"), IsOkAndHolds(int64_t{8} << 30));
}

TEST(ByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "8GB", "-1", "nan", "1e30", "8 apples"}) {
    EXPECT_THAT(ParseByteSize(text),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(ByteSizeTest, WritesTheLargestFittingUnit) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(1536), "1.50 KiB");
  EXPECT_EQ(FormatByteSize(int64_t{24} << 30), "24.00 GiB");
}

}  // namespace
}  // namespace lapidary
