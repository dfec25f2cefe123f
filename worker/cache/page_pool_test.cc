#include "worker/cache/page_pool.h"

#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(PagePoolTest, HandsOutEveryPageOnce) {
  PagePool pool(3);
  EXPECT_EQ(pool.Take(), 0);
  EXPECT_EQ(pool.Take(), 1);
  EXPECT_EQ(pool.Take(), 2);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_used(), 3);
}

TEST(PagePoolTest, ReusesThePageGivenBackLast) {
  PagePool pool(3);
  pool.Take();
  const PageId page = pool.Take();
  pool.Release(page);
  EXPECT_EQ(pool.Take(), page);
}

TEST(PagePoolTest, KeepsAPageUntilItsLastHolderIsGone) {
  PagePool pool(1);
  const PageId page = pool.Take();
  pool.Hold(page);
  pool.Release(page);
  EXPECT_EQ(pool.num_free(), 0);
  pool.Release(page);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePoolDeathTest, DiesOfAPageGivenBackTwice) {
  PagePool pool(2);
  const PageId page = pool.Take();
  pool.Release(page);
  EXPECT_DEATH(pool.Release(page), "page 0");
  EXPECT_DEATH(pool.Hold(page), "page 0");
}

TEST(PagePoolDeathTest, DiesOfTakingWhatIsNotThere) {
  PagePool pool(1);
  pool.Take();
  EXPECT_DEATH(pool.Take(), "empty");
}

}  // namespace
}  // namespace lapidary
