#include "worker/loader/disk_check.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DiskCheckTest, LetsThroughWhatFits) {
  EXPECT_OK(CheckDisk(::testing::TempDir(), 1, "a byte"));
}

TEST(DiskCheckTest, SaysWhatIsNeededAndWhatThereIs) {
  EXPECT_THAT(
      CheckDisk(::testing::TempDir(), int64_t{1} << 60, "the packed weights"),
      StatusIs(absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("of disk for the packed weights"),
                     HasSubstr("available"))));
}

TEST(DiskCheckTest, NamesADirectoryThatIsNotThere) {
  EXPECT_THAT(CheckDisk("/no/such", 1, "a byte"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

}  // namespace
}  // namespace lapidary
