#include "router/rpc/discovery.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseGroupListTest, ReadsAddresses) {
  EXPECT_THAT(ParseGroupList("a:1, b.example:65535,[::1]:3"),
              IsOkAndHolds(ElementsAre("a:1", "b.example:65535", "[::1]:3")));
}

TEST(ParseGroupListTest, NamesTheBadEntry) {
  for (const char* bad :
       {"a:1,b", "a:1,:5", "a:1,b:0", "a:1,b:65536", "a:1,b:x"}) {
    EXPECT_THAT(ParseGroupList(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("needs HOST:PORT")))
        << bad;
  }
  EXPECT_THAT(ParseGroupList("a:1,a:1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("twice")));
  EXPECT_THAT(ParseGroupList(" , "),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace lapidary
