#include "worker/cache/kv_cache.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr KvCache::Options kOneRank = {
    .global_pages_per_rank = 8, .window_pages = 6, .window = 100};

class KvCacheTest : public ::testing::Test {
 protected:
  // A sequence that ran steps up to these positions.
  KvCache::Lease Run(std::vector<int> ends) {
    KvCache::Lease lease = cache_.NewLease();
    for (const int end : ends) {
      EXPECT_OK(cache_.Extend(end, lease));
      cache_.Trim(lease);
    }
    return lease;
  }

  KvCache cache_{kOneRank};
};

TEST_F(KvCacheTest, TakesAGlobalPageForEvery64Positions) {
  KvCache::Lease lease = Run({1});
  EXPECT_THAT(lease.global_pages(), ElementsAre(0));
  ASSERT_OK(cache_.Extend(64, lease));
  EXPECT_THAT(lease.global_pages(), ElementsAre(0));
  ASSERT_OK(cache_.Extend(65, lease));
  EXPECT_THAT(lease.global_pages(), ElementsAre(0, 1));
  EXPECT_EQ(cache_.global_use().used, 2);
}

// The picture of the header.
TEST_F(KvCacheTest, SlidesTheWindowTable) {
  KvCache::Lease lease = Run({300});
  EXPECT_EQ(lease.window_base(), 3);
  EXPECT_THAT(lease.window_pages(), SizeIs(2));
  ASSERT_OK(cache_.Extend(340, lease));
  EXPECT_EQ(lease.window_base(), 3);
  EXPECT_THAT(lease.window_pages(), SizeIs(3));
  EXPECT_EQ(cache_.window_use().used, 3);
  cache_.Trim(lease);  // The query at 340 sees 241.
  EXPECT_EQ(lease.window_base(), 3);
  ASSERT_OK(cache_.Extend(355, lease));
  cache_.Trim(lease);  // The query at 355 sees 256.
  EXPECT_EQ(lease.window_base(), 4);
  EXPECT_EQ(cache_.window_use().used, 2);
  EXPECT_EQ(lease.num_window_pages_held(), 2);
}

TEST_F(KvCacheTest, StoresOnlyWhatLaterStepsSeeOfALongChunk) {
  KvCache::Lease lease = cache_.NewLease();
  ASSERT_OK(cache_.Extend(300, lease));
  EXPECT_EQ(lease.window_base(), 0);
  ASSERT_THAT(lease.window_pages(), SizeIs(5));
  EXPECT_THAT(lease.window_pages().first(3), Each(kNoPage));
  EXPECT_EQ(lease.num_window_pages_held(), 2);
}

TEST_F(KvCacheTest, KeepsThePagesThatTheStepReads) {
  KvCache::Lease lease = Run({130});
  const std::vector<PageId> before(lease.window_pages().begin(),
                                   lease.window_pages().end());
  EXPECT_EQ(lease.window_base(), 0);  // The query at 130 sees 31.
  ASSERT_OK(cache_.Extend(400, lease));
  EXPECT_THAT(lease.window_pages().first(3),
              ::testing::ElementsAreArray(before));
  EXPECT_THAT(lease.window_pages().subspan(3, 1), Each(kNoPage));
}

TEST_F(KvCacheTest, TakesNothingWhenGlobalPagesAreShort) {
  const KvCache::Lease other = Run({6 * 64});
  KvCache::Lease lease = Run({64});
  EXPECT_THAT(cache_.Extend(3 * 64, lease),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "needs 2 global pages, 1 available"));
  EXPECT_EQ(lease.num_tokens(), 64);
  EXPECT_EQ(cache_.global_use().used, 7);
  EXPECT_EQ(cache_.window_use().used, 3);
}

TEST_F(KvCacheTest, TakesNothingWhenWindowPagesAreShort) {
  const KvCache::Lease first = Run({128});
  const KvCache::Lease second = Run({128});
  const KvCache::Lease third = Run({64});
  KvCache::Lease lease = cache_.NewLease();
  EXPECT_THAT(cache_.Extend(128, lease),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "needs 2 window pages, 1 available"));
  EXPECT_EQ(cache_.global_use().used, 5);
  EXPECT_EQ(cache_.window_use().used, 5);
}

TEST_F(KvCacheTest, ReachesTheLastBorderThatFits) {
  const KvCache::Lease other = Run({5 * 64});
  KvCache::Lease lease = Run({30});
  EXPECT_EQ(cache_.Reach(100, lease), 100);
  EXPECT_EQ(cache_.Reach(500, lease), 3 * 64);
  ASSERT_OK(cache_.Extend(3 * 64, lease));
  EXPECT_EQ(cache_.Reach(500, lease), 3 * 64);
}

TEST_F(KvCacheTest, ReachesTheEndOfTheLastPageWithoutPages) {
  const KvCache::Lease other = Run({7 * 64});
  KvCache::Lease lease = Run({30});
  EXPECT_EQ(cache_.Reach(500, lease), 64);
  EXPECT_EQ(cache_.Reach(31, lease), 31);
}

TEST_F(KvCacheTest, GivesPagesBackWithTheLease) {
  {
    KvCache::Lease lease = Run({300});
    EXPECT_EQ(cache_.global_use().used, 5);
  }
  EXPECT_EQ(cache_.global_use().used, 0);
  EXPECT_EQ(cache_.window_use().used, 0);
}

TEST_F(KvCacheTest, MovesPagesWithTheLease) {
  KvCache::Lease lease = Run({100});
  KvCache::Lease moved = std::move(lease);
  EXPECT_EQ(moved.num_tokens(), 100);
  EXPECT_EQ(cache_.global_use().used, 2);
  moved = Run({64});
  EXPECT_EQ(cache_.global_use().used, 1);
  moved = KvCache::Lease();
  EXPECT_EQ(cache_.global_use().used, 0);
}

TEST_F(KvCacheTest, ReusesPagesInAnyOrder) {
  std::optional<KvCache::Lease> first = Run({3 * 64});
  const KvCache::Lease second = Run({2 * 64});
  first.reset();
  KvCache::Lease third = cache_.NewLease();
  ASSERT_OK(cache_.Extend(6 * 64, third));  // All that is not second's.
  EXPECT_EQ(cache_.global_use().used, 8);
}

TEST_F(KvCacheTest, KnowsWhatCanEverFit) {
  const KvCache::Lease other = Run({300});
  EXPECT_TRUE(cache_.CanEverFit(8 * 64));
  EXPECT_FALSE(cache_.CanEverFit(8 * 64 + 1));
}

TEST_F(KvCacheTest, CannotEverFitALongSequenceWithoutAWindow) {
  const KvCache cache(
      {.global_pages_per_rank = 8, .window_pages = 2, .window = 100});
  EXPECT_TRUE(cache.CanEverFit(128));
  EXPECT_FALSE(cache.CanEverFit(129));
}

TEST(KvCacheRanksTest, DealsGlobalPagesOutInTurn) {
  KvCache cache({.num_ranks = 3,
                 .global_pages_per_rank = 2,
                 .window_pages = 6,
                 .window = 100});
  KvCache::Lease lease = cache.NewLease();
  ASSERT_OK(cache.Extend(4 * 64, lease));
  EXPECT_THAT(lease.global_pages(), ElementsAre(0, 0, 0, 1));
  EXPECT_EQ(cache.global_use().total, 6);
  EXPECT_EQ(cache.global_use().used, 4);
  EXPECT_EQ(cache.free_global_pages(), 0);  // Rank 0 has none.
  EXPECT_EQ(cache.Reach(8 * 64, lease), 6 * 64);
  KvCache::Lease other = cache.NewLease();
  EXPECT_THAT(
      cache.Extend(1, other),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("global")));
  EXPECT_THAT(other.global_pages(), IsEmpty());
}

TEST(KvCacheRanksTest, FitsWhatTheScarcestRankHolds) {
  const KvCache cache({.num_ranks = 3,
                       .global_pages_per_rank = 2,
                       .window_pages = 6,
                       .window = 100});
  EXPECT_TRUE(cache.CanEverFit(6 * 64));
  EXPECT_FALSE(cache.CanEverFit(6 * 64 + 1));
}

TEST(WindowPagesTest, CountsTheMostPagesThatAWindowTouches) {
  for (const int window : {1, 2, 63, 64, 65, 66, 100, 127, 128, 512, 1024}) {
    int most = 0;
    for (int query = 0; query < 3000; ++query) {
      const int first = std::max(0, query - window + 1);
      most = std::max(most, query / kPageTokens - first / kPageTokens + 1);
      EXPECT_LE(query / kPageTokens - first / kPageTokens + 1,
                WindowPages(query + 1, window));
    }
    EXPECT_EQ(WindowPages(3000, window), most) << window;
  }
}

// Every position that a query sees has its page, whatever the steps are.
TEST(KvCacheWindowTest, MapsEveryVisiblePosition) {
  for (const int window : {1, 2, 63, 64, 65, 96, 100, 512}) {
    for (const int chunk : {1, 63, 64, 65, 100, 1000}) {
      KvCache cache(
          {.global_pages_per_rank = 40, .window_pages = 40, .window = window});
      KvCache::Lease lease = cache.NewLease();
      for (int start = 0; start < 2000; start += chunk) {
        ASSERT_OK(cache.Extend(start + chunk, lease));
        for (int p = std::max(0, start - window + 1); p < start; ++p) {
          const int index = p / kPageTokens - lease.window_base();
          ASSERT_GE(index, 0);
          ASSERT_NE(lease.window_pages()[index], kNoPage)
              << "window " << window << " chunk " << chunk << " position " << p;
        }
        cache.Trim(lease);
        ASSERT_LE(cache.window_use().used,
                  WindowPages(start + chunk + 1, window));
        ASSERT_EQ(cache.window_use().used, lease.num_window_pages_held());
      }
    }
  }
}

}  // namespace
}  // namespace lapidary
