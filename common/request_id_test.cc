#include "common/request_id.h"

#include <string>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(RequestIdTest, AcceptsWhatMayStandInALogLine) {
  EXPECT_TRUE(IsRequestId("7f3a-B.c:/_"));
  EXPECT_TRUE(IsRequestId(std::string(kMaxRequestIdBytes, 'x')));
}

TEST(RequestIdTest, RefusesBlanksControlsAndLength) {
  for (const std::string& id :
       {std::string(), std::string("a b"), std::string("a\nb"),
        std::string("\xc3\xa9"), std::string(kMaxRequestIdBytes + 1, 'x')}) {
    EXPECT_FALSE(IsRequestId(id)) << id;
  }
}

TEST(RequestIdTest, MakesIdsThatDiffer) {
  const std::string id = NewRequestId();
  EXPECT_EQ(id.size(), 16u);
  EXPECT_TRUE(IsRequestId(id));
  EXPECT_NE(id, NewRequestId());
}

}  // namespace
}  // namespace lapidary
