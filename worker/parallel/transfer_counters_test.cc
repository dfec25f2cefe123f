#include "worker/parallel/transfer_counters.h"

#include <set>
#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TransferCount CountOf(int64_t bytes) {
  return {.calls = 1,
          .bytes_sent = bytes,
          .bytes_received = 2 * bytes,
          .time = absl::Seconds(bytes)};
}

TEST(TransferCountersTest, KeepsKindsAndTrafficsApart) {
  TransferCounters counters;
  counters.Add(CollectiveKind::kAllReduce, Traffic::kHead, CountOf(3));
  counters.Add(CollectiveKind::kAllReduce, Traffic::kHead, CountOf(4));
  counters.Add(CollectiveKind::kAllReduce, Traffic::kControl, CountOf(10));
  counters.Add(CollectiveKind::kGather, Traffic::kHead, CountOf(100));
  const TransferCount& head =
      counters.of(CollectiveKind::kAllReduce, Traffic::kHead);
  EXPECT_EQ(head.calls, 2);
  EXPECT_EQ(head.bytes_sent, 7);
  EXPECT_EQ(head.bytes_received, 14);
  EXPECT_EQ(head.time, absl::Seconds(7));
  EXPECT_EQ(counters.of(CollectiveKind::kAllReduce).bytes_sent, 17);
  EXPECT_EQ(counters.Total().bytes_sent, 117);
  EXPECT_EQ(counters.Total().calls, 4);
}

TEST(TransferCountersTest, NamesAreForLabels) {
  std::set<std::string> names;
  for (int i = 0; i < kNumCollectiveKinds; ++i) {
    names.emplace(NameOf(static_cast<CollectiveKind>(i)));
  }
  for (int i = 0; i < kNumTraffics; ++i) {
    names.emplace(NameOf(static_cast<Traffic>(i)));
  }
  EXPECT_EQ(names.size(), kNumCollectiveKinds + kNumTraffics);
  for (const std::string& name : names) {
    EXPECT_THAT(name, ::testing::MatchesRegex("[a-z_]+"));
  }
}

}  // namespace
}  // namespace lapidary
