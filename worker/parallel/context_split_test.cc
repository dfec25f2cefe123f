#include "worker/parallel/context_split.h"

#include <algorithm>
#include <random>
#include <vector>

#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;

TEST(SplitRoundTest, GivesEqualPagesWhereAllTokensCostTheSame) {
  EXPECT_THAT(SplitRound({0, 1024}, 4, {}, 512),
              ElementsAre(256, 512, 768, 1024));
}

TEST(SplitRoundTest, GivesLaterRanksFewerTokensOfAGrowingContext) {
  const TokenCost cost = {.fixed = 0, .per_position = 1};
  const std::vector<int> ends = SplitRound({0, 65536}, 4, cost, 65536);
  // Equal areas under a line: ends at sqrt(1/4), sqrt(2/4), sqrt(3/4).
  EXPECT_NEAR(ends[0], 32768, kPageTokens);
  EXPECT_NEAR(ends[1], 46341, kPageTokens);
  EXPECT_NEAR(ends[2], 56756, kPageTokens);
  EXPECT_EQ(ends[3], 65536);
  EXPECT_LT(Balance(0, ends, cost), 1.01);
}

TEST(SplitRoundTest, KeepsToTheLongestRange) {
  const TokenCost cost = {.fixed = 0, .per_position = 1};
  EXPECT_THAT(SplitRound({0, 1024}, 4, cost, 256),
              ElementsAre(256, 512, 768, 1024));
}

TEST(SplitRoundTest, LeavesRanksWithoutTokensWherePagesAreFew) {
  EXPECT_THAT(SplitRound({0, 100}, 4, {}, 64), ElementsAre(64, 100, 100, 100));
}

TEST(SplitRoundTest, MayBeginAndEndInsideAPage) {
  EXPECT_THAT(SplitRound({100, 260}, 2, {}, 128), ElementsAre(192, 260));
}

// Any round: ranges are page-aligned, cover it, and keep to their bound.
TEST(SplitRoundTest, CoversAnyRound) {
  std::minstd_rand random(1);
  for (int run = 0; run < 5000; ++run) {
    const int num_ranks = 1 + random() % 8;
    const int max_range = (1 + random() % 20) * kPageTokens;
    const int begin =
        random() % 3 == 0 ? random() % 5000 : random() % 80 * kPageTokens;
    const int room = num_ranks * max_range - begin % kPageTokens;
    const int end = begin + 1 + random() % std::max(1, room);
    const TokenCost cost = {.fixed = random() % 2 * 1.0,
                            .per_position = random() % 100 / 1e3 + 1e-6};
    const std::vector<int> ends =
        SplitRound({begin, end}, num_ranks, cost, max_range);
    ASSERT_EQ(static_cast<int>(ends.size()), num_ranks);
    int at = begin;
    for (const int range_end : ends) {
      ASSERT_GE(range_end, at);
      ASSERT_LE(range_end - at, max_range);
      ASSERT_TRUE(range_end % kPageTokens == 0 || range_end == end);
      at = range_end;
    }
    ASSERT_EQ(at, end);
    ASSERT_GE(Balance(begin, ends, cost), 0.999);
  }
}

TEST(RoundSplitTest, GivesARankTheWindowBeforeItsRange) {
  const std::vector<int> ends = {320, 384, 512};
  const RoundSplit split(256, ends, /*window=*/100);
  EXPECT_EQ(split.range(0), (PositionRange{256, 320}));
  EXPECT_EQ(split.halo(0), (PositionRange{157, 256}));
  EXPECT_EQ(split.halo(1), (PositionRange{221, 320}));
  EXPECT_EQ(split.halo(2), (PositionRange{285, 384}));
  EXPECT_EQ(split.tail(), (PositionRange{413, 512}));
  EXPECT_EQ(split.RankOf(256), 0);
  EXPECT_EQ(split.RankOf(320), 1);
  EXPECT_EQ(split.RankOf(511), 2);
}

TEST(RoundSplitTest, CutsHaloAndTailAtTheBeginning) {
  const std::vector<int> ends = {64, 80, 80};
  const RoundSplit split(0, ends, /*window=*/100);
  EXPECT_TRUE(split.halo(0).empty());
  EXPECT_EQ(split.halo(1), (PositionRange{0, 64}));
  EXPECT_TRUE(split.halo(2).empty());
  EXPECT_EQ(split.tail(), (PositionRange{0, 80}));
}

TEST(RoundSplitTest, HasNoHaloWithAWindowOfOne) {
  const std::vector<int> ends = {64, 128};
  const RoundSplit split(0, ends, /*window=*/1);
  EXPECT_TRUE(split.halo(1).empty());
  EXPECT_TRUE(split.tail().empty());
}

TEST(ShareOfKvHeadsTest, DividesHeadsOverRanks) {
  const KvHeadShare share = ShareOfKvHeads(8, 3, 4);
  EXPECT_EQ(share.first, 6);
  EXPECT_EQ(share.count, 2);
  EXPECT_TRUE(share.primary);
}

TEST(ShareOfKvHeadsTest, RepeatsHeadsWhereRanksAreMore) {
  const KvHeadShare third = ShareOfKvHeads(4, 2, 8);
  EXPECT_EQ(third.first, 1);
  EXPECT_EQ(third.count, 1);
  EXPECT_TRUE(third.primary);
  EXPECT_FALSE(ShareOfKvHeads(4, 3, 8).primary);
}

// Of the 12B in bf16.
constexpr GlobalShape k12b = {.num_heads = 16,
                              .kv_heads = 1,
                              .head_dim = 512,
                              .key_half = 64,
                              .activation_bytes = 2};

TEST(ChooseTravelTest, MovesWhatIsSmaller) {
  // 1280 bytes a position of context, 49216 a query: 38.45 positions.
  EXPECT_EQ(ChooseTravel(38, 1, k12b), Travel::kKeys);
  EXPECT_EQ(ChooseTravel(39, 1, k12b), Travel::kQueries);
  EXPECT_EQ(ChooseTravel(38450, 1000, k12b), Travel::kQueries);
  EXPECT_EQ(ChooseTravel(38449, 1000, k12b), Travel::kKeys);
  EXPECT_EQ(ChooseTravel(0, 1, k12b), Travel::kKeys);
}

// At equal bytes queries travel: the rule says "less than".
TEST(ChooseTravelTest, MovesQueriesAtEqualBytes) {
  const GlobalShape shape = {.num_heads = 1,
                             .kv_heads = 1,
                             .head_dim = 16,
                             .key_half = 8,
                             .activation_bytes = 4};
  // 128 bytes a position, 132 a query.
  EXPECT_EQ(ChooseTravel(33, 32, shape), Travel::kQueries);
  EXPECT_EQ(ChooseTravel(32, 32, shape), Travel::kKeys);
}

TEST(TravelBytesTest, AreTheFormulasOfTheArchitecture) {
  EXPECT_EQ(AllReduceBytes(8, 3840, 2, 4), 2 * 8 * 3840 * 2 * 3 / 4);
  EXPECT_EQ(QueriesTravelBytes(2, k12b, 2), 49216);
  EXPECT_EQ(KeysTravelBytes(256, k12b, 4), 256 * 1280 * 3 / 4);
}

// Of pages 1 to 4 rank 1 owns two, the others one.
TEST(TravelBytesTest, OwnPagesDoNotTravel) {
  constexpr int kPage = 64 * 1280;
  EXPECT_EQ(PagesBytes(1, 5, 0, 3, k12b), 3 * kPage);
  EXPECT_EQ(PagesBytes(1, 5, 1, 3, k12b), 2 * kPage);
  EXPECT_EQ(PagesBytes(1, 5, 2, 3, k12b), 3 * kPage);
  EXPECT_EQ(PagesBytes(5, 5, 0, 3, k12b), 0);
  EXPECT_EQ(PagesBytes(0, 4, 1, 4, k12b), KeysTravelBytes(256, k12b, 4));
}

TEST(TravelBytesTest, FinalStatesComeFromTheRangesTheyAreIn) {
  const std::vector<int> ends = {64, 128, 130};
  const RoundSplit split(0, ends, 5);
  EXPECT_EQ(FinalStatesBytes(split, 0, 5, 10, 4), 5 * 10 * 4);
  EXPECT_EQ(FinalStatesBytes(split, 1, 5, 10, 4), 2 * 10 * 4);
  EXPECT_EQ(FinalStatesBytes(split, 2, 5, 10, 4), 3 * 10 * 4);
}

// Of 100 positions of the window before rank 1's range, 64 are in the round.
TEST(TravelBytesTest, ARoundsBytesDependOnTheRange) {
  const std::vector<int> ends = {192, 384};
  const RoundSplit split(128, ends, /*window=*/101);
  constexpr WindowShape kWindow = {
      .kv_heads = 8, .head_dim = 256, .activation_bytes = 2};
  constexpr int kHead = 2 * 256 * 2;
  EXPECT_EQ(RoundKeysBytes(split, 0, k12b), 192 * 512 * 2);
  EXPECT_EQ(RoundKeysBytes(split, 1, k12b), 64 * 512 * 2);
  EXPECT_EQ(HaloBytes(split, 0, kWindow), 100 * 4 * kHead);
  EXPECT_EQ(HaloBytes(split, 1, kWindow), (64 * 8 + 36 * 4) * kHead);
  EXPECT_EQ(TailBytes(split, 0, kWindow), 100 * 4 * kHead);
  EXPECT_EQ(TailBytes(split, 1, kWindow), 0);
}

}  // namespace
}  // namespace lapidary
