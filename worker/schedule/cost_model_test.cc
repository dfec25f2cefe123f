#include "worker/schedule/cost_model.h"

#include <algorithm>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr double kFast = 1e15;  // As good as nothing.

// Small enough for a pencil.  Weights of the layers: whole 5160 =
//   window  2 layers (640 q, o + 320 k, v)  = 1920
//   global  1280 q, o + 160 k               = 1440
//   MLP     3 layers 3 * 10 * 20            = 1800
// and of a rank of two 960 / 2 * 2 + (640 + 160) + 900 = 2660.
ModelShape SmallShape() {
  return {.hidden_size = 10,
          .intermediate_size = 20,
          .num_heads = 4,
          .vocab_size = 1000,
          .window = 5,
          .window_layers = {.count = 2,
                            .kv_heads = 2,
                            .head_dim = 8,
                            .key_half = 4,
                            .has_v = true},
          .global_layers = {.count = 1,
                            .kv_heads = 1,
                            .head_dim = 16,
                            .key_half = 2,
                            .has_v = false}};
}

// Gemma 4 12B.
ModelShape LargeShape() {
  return {.hidden_size = 3840,
          .intermediate_size = 15360,
          .num_heads = 16,
          .vocab_size = 262144,
          .window = 1024,
          .window_layers = {.count = 40,
                            .kv_heads = 8,
                            .head_dim = 256,
                            .key_half = 128,
                            .has_v = true},
          .global_layers = {.count = 8,
                            .kv_heads = 1,
                            .head_dim = 512,
                            .key_half = 64,
                            .has_v = false}};
}

RankRates Rates(double matmul, double attention, double read) {
  return {.matmul_flops = matmul,
          .attention_flops = attention,
          .read_bytes = read,
          .link_bytes = kFast,
          .link_latency = absl::ZeroDuration()};
}

// A GPU of performance goals: 790 TFLOP/s, 4.3 TB/s, 360 GB/s and 20 us.
RankRates GpuRates() {
  return {.matmul_flops = 790e12,
          .attention_flops = 790e12,
          .read_bytes = 4.3e12,
          .link_bytes = 360e9,
          .link_latency = absl::Microseconds(20)};
}

constexpr int kGatherPages = 1024;

CostModel Small(int num_ranks, const RankRates& rates,
                int gather_pages = kGatherPages) {
  return CostModel(SmallShape(), rates,
                   {.num_ranks = num_ranks,
                    .activation_bytes = 4,
                    .gather_pages = gather_pages});
}

CostModel Large(int num_ranks, const RankRates& rates = GpuRates()) {
  return CostModel(LargeShape(), rates,
                   {.num_ranks = num_ranks,
                    .activation_bytes = 2,
                    .gather_pages = kGatherPages});
}

StepCost HeadSplit(const CostModel& model, std::vector<CostModel::Part> parts,
                   int num_logit_rows = 0) {
  return model.HeadSplit(parts, num_logit_rows);
}

StepCost TokenSplit(const CostModel& model, int start, std::vector<int> ends,
                    int replica_tokens = kNoReplica) {
  return model.TokenSplit(start, ends, replica_tokens, 0);
}

// ------------------------------------------------------------ Computation

TEST(CostModelTest, DividesMatricesUnderHeadSplit) {
  const RankRates rates = Rates(1, kFast, kFast);
  EXPECT_DOUBLE_EQ(HeadSplit(Small(1, rates), {{0, 3}}).matmul, 2 * 3 * 5160);
  EXPECT_DOUBLE_EQ(HeadSplit(Small(2, rates), {{0, 3}}).matmul, 2 * 3 * 2660);
}

TEST(CostModelTest, RepeatsKvHeadsOfWindowLayersWhereRanksAreMore) {
  // On four ranks: 2 (160 + 160) + (320 + 160) + 450.
  EXPECT_DOUBLE_EQ(HeadSplit(Small(4, Rates(1, kFast, kFast)), {{0, 1}}).matmul,
                   2 * 1570);
}

TEST(CostModelTest, ReadsWeightsAtLeastOnce) {
  EXPECT_DOUBLE_EQ(HeadSplit(Small(2, Rates(kFast, kFast, 1)), {{0, 3}}).matmul,
                   2 * 2660);
}

TEST(CostModelTest, ReadsWeightsOnceForAllSequences) {
  const CostModel model = Small(2, Rates(kFast, kFast, 1));
  EXPECT_DOUBLE_EQ(HeadSplit(model, {{0, 3}, {0, 1}}).matmul, 2 * 2660);
}

TEST(CostModelTest, CountsPairsInTheWindow) {
  // Queries 3 … 6 see 4, 5, 5, 5 keys: 2 layers, 4 H d = 128.
  const StepCost cost = HeadSplit(Small(1, Rates(kFast, 1, kFast)), {{3, 4}});
  EXPECT_DOUBLE_EQ(cost.window_attention, 2 * 128 * 19);
}

TEST(CostModelTest, CountsAllPairsInGlobalLayers) {
  // Queries 3 … 6 see 4 + 5 + 6 + 7 keys: 4 H d = 256.
  const RankRates rates = Rates(kFast, 1, kFast);
  EXPECT_DOUBLE_EQ(HeadSplit(Small(1, rates), {{3, 4}}).global_attention,
                   256 * 22);
  EXPECT_DOUBLE_EQ(HeadSplit(Small(2, rates), {{3, 4}}).global_attention,
                   128 * 22);
}

TEST(CostModelTest, ReadsTheKeysOfTheContext) {
  // 100 positions of 20 values of 4 bytes; in the window 4 of 32.
  const StepCost cost = HeadSplit(Small(1, Rates(kFast, kFast, 1)), {{100, 1}});
  EXPECT_DOUBLE_EQ(cost.global_attention, 100 * 20 * 4);
  EXPECT_DOUBLE_EQ(cost.window_attention, 2 * 4 * 32 * 4);
}

TEST(CostModelTest, DividesTheHeadByVocabulary) {
  EXPECT_DOUBLE_EQ(
      HeadSplit(Small(2, Rates(1, kFast, kFast)), {{0, 1}}, 3).head,
      2 * 3 * 10 * 500);
}

TEST(CostModelTest, WaitsForTheLongestRangeAndThatWithMostPairs) {
  const CostModel model = Small(2, Rates(1, 1, kFast));
  const StepCost cost = TokenSplit(model, 0, {128, 192});
  EXPECT_DOUBLE_EQ(cost.matmul, 2 * 128 * 5160);
  // 1 + … + 128 keys on rank 0, 129 + … + 192 on rank 1.
  EXPECT_DOUBLE_EQ(cost.global_attention, 256 * 64 * 160.5);
  EXPECT_DOUBLE_EQ(
      cost.busiest_rank,
      2 * 128 * 5160 + 2 * 128 * (10 + 124 * 5) + 256 * 128 * 64.5);
}

TEST(CostModelTest, ComputesLongPromptsOfTheTwelveBAsPlanned) {
  // 128K tokens on one GPU: 3.617 s of matrices, 0.111 of window and 2.850 of
  // global attention (goals for one H200).
  const CostModel model = Large(1);
  const StepCost cost = HeadSplit(model, {{0, 131072}});
  EXPECT_NEAR(cost.matmul, 3.617, 0.001);
  EXPECT_NEAR(cost.window_attention, 0.111, 0.001);
  EXPECT_NEAR(cost.global_attention, 2.850, 0.001);
  // Decoding reads 21.8 GB of weights, and 2 GB for the head.
  const StepCost decode = HeadSplit(model, {{8192, 1}}, 1);
  EXPECT_NEAR(decode.matmul + decode.head, 0.00554, 0.00002);
}

// -------------------------------------------------------------- Exchanges

TEST(CostModelTest, ExchangesNothingAlone) {
  const CostModel model = Small(1, Rates(1, 1, 1));
  for (const StepCost::Exchanged& exchanged :
       HeadSplit(model, {{100, 1}}, 1).exchanged) {
    EXPECT_EQ(exchanged.bytes, 0);
    EXPECT_EQ(exchanged.exchanges, 0);
  }
}

TEST(CostModelTest, ReducesTwiceALayer) {
  // 6 times 2 * 3 * 10 * 4 bytes / 2.
  const StepCost::Exchanged reduced =
      HeadSplit(Small(2, Rates(1, 1, 1)), {{0, 3}}).of(Transfer::kAllReduce);
  EXPECT_EQ(reduced.bytes, 6 * 120);
  EXPECT_EQ(reduced.exchanges, 12);
}

TEST(CostModelTest, LetsQueriesTravelToALongContext) {
  // 3 tokens of 4 heads of 16 values of 4 bytes out, of 4 and a float back.
  const StepCost cost =
      HeadSplit(Small(2, Rates(1, 1, 1)), {{1000, 1}, {2000, 2}});
  EXPECT_EQ(cost.of(Transfer::kQueries).bytes, 3 * 4 * (64 + 64 + 4) / 2);
  EXPECT_EQ(cost.of(Transfer::kQueries).exchanges, 2);
  EXPECT_EQ(cost.of(Transfer::kKeys).bytes, 0);
}

TEST(CostModelTest, LetsKeysTravelToManyQueries) {
  // 3 pages, two of which are on the other rank; 20 values of 4 bytes.
  const StepCost cost = HeadSplit(Small(2, Rates(1, 1, 1)), {{150, 1000}});
  EXPECT_EQ(cost.of(Transfer::kKeys).bytes, 2 * 64 * 20 * 4);
  EXPECT_EQ(cost.of(Transfer::kKeys).exchanges, 1);
  EXPECT_EQ(cost.of(Transfer::kQueries).bytes, 0);
}

TEST(CostModelTest, SendsTheKeysOfARoundOnce) {
  // Rank 0 lacks 128 of them: 16 raw values of 4 bytes.
  const StepCost cost = TokenSplit(Small(2, Rates(1, 1, 1)), 0, {64, 192});
  EXPECT_EQ(cost.of(Transfer::kRoundKeys).bytes, 128 * 16 * 4);
  EXPECT_EQ(cost.of(Transfer::kAllReduce).bytes, 0);
}

TEST(CostModelTest, SendsTheHaloOfARange) {
  // Of a round from 0: rank 1 gets 4 positions, 2 heads of 16 values, 2 layers.
  const CostModel model = Small(2, Rates(1, 1, 1));
  EXPECT_EQ(TokenSplit(model, 0, {64, 128}).of(Transfer::kHalo).bytes,
            2 * 4 * 2 * 16 * 4);
  // Of a single page later on: rank 0 has one head of the positions before it.
  EXPECT_EQ(TokenSplit(model, 64, {128, 128}).of(Transfer::kHalo).bytes,
            2 * 4 * 1 * 16 * 4);
}

TEST(CostModelTest, SendsTheTailToTheHeads) {
  // Rank 0 gets its head of 4 positions.
  const StepCost cost = TokenSplit(Small(2, Rates(1, 1, 1)), 0, {64, 128});
  EXPECT_EQ(cost.of(Transfer::kWindowTail).bytes, 2 * 4 * 16 * 4);
}

TEST(CostModelTest, SendsTheFinalStatesOfARoundToAllRanks) {
  const CostModel model = Small(2, Rates(1, 1, 1));
  const std::vector<int> ends = {64, 128};
  const StepCost last = model.TokenSplit(0, ends, 0, /*num_logit_rows=*/3);
  EXPECT_EQ(last.of(Transfer::kFinalStates).bytes, 3 * 10 * 4);
  EXPECT_EQ(last.of(Transfer::kFinalStates).exchanges, 1);
  const StepCost earlier = model.TokenSplit(0, ends, 0, /*num_logit_rows=*/0);
  EXPECT_EQ(earlier.of(Transfer::kFinalStates).exchanges, 0);
}

TEST(CostModelTest, FillsTheReplicaWithWhatItLacks) {
  const CostModel model = Small(2, Rates(1, 1, 1));
  const int64_t page = 64 * 20 * 4;
  const auto fill = [&](int replica_tokens) {
    return TokenSplit(model, 320, {384, 448}, replica_tokens)
        .of(Transfer::kReplica)
        .bytes;
  };
  EXPECT_EQ(fill(320), 0);
  EXPECT_EQ(fill(300), 1 * page);  // The page of 300 … 319.
  EXPECT_EQ(fill(0), 3 * page);    // Of 5, rank 1 has 2.
}

TEST(CostModelTest, GathersEarlierKeysWithoutAReplica) {
  const StepCost cost = TokenSplit(Small(2, Rates(1, 1, 1)), 320, {384, 448});
  EXPECT_EQ(cost.of(Transfer::kKeys).bytes, 3 * 64 * 20 * 4);
  EXPECT_EQ(cost.of(Transfer::kReplica).bytes, 0);
}

TEST(CostModelTest, GathersNoMorePagesAtATimeThanTheBufferHolds) {
  const auto exchanges = [](int gather_pages, int start, int replica_tokens) {
    const CostModel model = Small(2, Rates(1, 1, 1), gather_pages);
    const StepCost cost =
        TokenSplit(model, start, {start + 64, start + 128}, replica_tokens);
    return cost.of(Transfer::kKeys).exchanges +
           cost.of(Transfer::kReplica).exchanges;
  };
  EXPECT_EQ(exchanges(5, 320, kNoReplica), 1);
  EXPECT_EQ(exchanges(4, 320, kNoReplica), 2);
  EXPECT_EQ(exchanges(1, 320, kNoReplica), 5);
  EXPECT_EQ(exchanges(2, 320, 64), 2);
  EXPECT_EQ(exchanges(1, 320, 320), 0);
}

TEST(CostModelTest, TakesTheTimeOfComputationAndExchanges) {
  RankRates rates = Rates(kFast, kFast, kFast);
  rates.link_bytes = 100;
  rates.link_latency = absl::Seconds(3);
  const CostModel model = Small(2, rates);
  StepCost cost;
  cost.matmul = 5;
  cost.head = 1;
  cost.of(Transfer::kHalo) = {.bytes = 200, .exchanges = 2};
  EXPECT_EQ(model.Time(cost), absl::Seconds(6 + 2 + 6));
}

// ----------------------------------------------------------------- Choice

constexpr CostModel::StepLimits kLimits = {.max_step_tokens = 512,
                                           .max_range_tokens = 2048};

TEST(CostModelTest, ChoosesARoundForALongPrompt) {
  const PrefillChoice choice =
      Large(4).Choose({.context = 0, .tokens_left = 131072}, kLimits);
  EXPECT_EQ(choice.layout, Layout::kTokenSplit);
  ASSERT_EQ(choice.range_ends.size(), 4u);
  EXPECT_LE(choice.range_ends[0], 2048);  // The longest.
  EXPECT_EQ(choice.num_tokens, choice.range_ends.back());
  EXPECT_FALSE(choice.over_limit);
}

TEST(CostModelTest, ChoosesHeadSplitForAShortPrompt) {
  const PrefillChoice choice =
      Large(4).Choose({.context = 0, .tokens_left = 60}, kLimits);
  EXPECT_EQ(choice.layout, Layout::kHeadSplit);
  EXPECT_EQ(choice.num_tokens, 60);
  EXPECT_THAT(choice.range_ends, IsEmpty());
}

TEST(CostModelTest, ChoosesHeadSplitForOneRankOrWithoutRounds) {
  const CostModel::Prefill prefill = {.context = 0, .tokens_left = 131072};
  EXPECT_EQ(Large(1).Choose(prefill, kLimits).layout, Layout::kHeadSplit);
  CostModel::StepLimits limits = kLimits;
  limits.max_range_tokens = 0;
  const PrefillChoice choice = Large(4).Choose(prefill, limits);
  EXPECT_EQ(choice.layout, Layout::kHeadSplit);
  EXPECT_EQ(choice.num_tokens, 512);
}

TEST(CostModelTest, ChoosesWhatDoesMostWorkASecond) {
  for (const int left : {100, 500, 1000, 2000, 4000, 10000}) {
    const CostModel model = Large(8);
    const CostModel::Prefill prefill = {.context = 4096, .tokens_left = left};
    const PrefillChoice choice = model.Choose(prefill, kLimits);
    const PrefillChoice round = model.BestRound(prefill, kLimits);
    CostModel::StepLimits chunks = kLimits;
    chunks.max_range_tokens = 0;
    const PrefillChoice chunk = model.Choose(prefill, chunks);
    const auto speed = [&](const PrefillChoice& choice) {
      return model.token_cost().Of({4096, 4096 + choice.num_tokens}) /
             absl::ToDoubleSeconds(choice.planned_time);
    };
    EXPECT_EQ(speed(choice), std::max(speed(round), speed(chunk))) << left;
  }
}

TEST(CostModelTest, MakesRoundsShorterWhereRanksWouldWait) {
  // Attention is most of the work, and costs the last range of the first round
  // much more than the first; exchanges cost nearly nothing.
  RankRates rates = GpuRates();
  rates.attention_flops /= 20;
  rates.link_bytes = kFast;
  rates.link_latency = absl::ZeroDuration();
  const CostModel::Prefill prefill = {.context = 0, .tokens_left = 131072};
  const CostModel cheap = Large(8, rates);
  EXPECT_LT(cheap.BestRound(prefill, kLimits).num_tokens, 8 * 1024);
  // Where they cost much, rounds are as long as memory allows.
  rates.link_bytes = 5e9;
  rates.link_latency = absl::Milliseconds(10);
  const CostModel dear = Large(8, rates);
  const PrefillChoice round = dear.BestRound(prefill, kLimits);
  EXPECT_GT(round.range_ends[0], 2048 - 64);
  EXPECT_LE(round.range_ends[0], 2048);
}

TEST(CostModelTest, KeepsARoundWithinTheLimit) {
  CostModel::StepLimits limits = kLimits;
  limits.time = absl::Milliseconds(50);
  const PrefillChoice choice =
      Large(4).Choose({.context = 65536, .tokens_left = 65536}, limits);
  EXPECT_EQ(choice.layout, Layout::kTokenSplit);
  EXPECT_LE(choice.planned_time, limits.time);
  EXPECT_FALSE(choice.over_limit);
  // A page a rank more does not keep to it.
  const PrefillChoice longer =
      Large(4).RoundTo({.context = 65536, .tokens_left = 65536},
                       65536 + choice.num_tokens + 4 * 64, kLimits);
  EXPECT_GT(longer.planned_time, limits.time);
}

TEST(CostModelTest, TakesAPageThatIsOverTheLimit) {
  CostModel::StepLimits limits = kLimits;
  limits.time = absl::Nanoseconds(1);
  const CostModel::Prefill prefill = {.context = 65600, .tokens_left = 65000};
  const PrefillChoice round = Large(4).BestRound(prefill, limits);
  EXPECT_EQ(round.num_tokens, 64);
  EXPECT_TRUE(round.over_limit);
  const PrefillChoice choice = Large(4).Choose(prefill, limits);
  EXPECT_EQ(choice.num_tokens, 64);
  EXPECT_TRUE(choice.over_limit);
}

TEST(CostModelTest, EndsARoundAtAPageBorderOrWithThePrompt) {
  const CostModel model = Large(2);
  EXPECT_EQ(model.BestRound({.context = 100, .tokens_left = 20000}, kLimits)
                    .range_ends.back() %
                64,
            0);
  EXPECT_EQ(model.BestRound({.context = 100, .tokens_left = 1234}, kLimits)
                .range_ends.back(),
            1334);
}

TEST(CostModelTest, CutsARoundShortWhereMemoryIs) {
  const PrefillChoice round =
      Large(2).RoundTo({.context = 0, .tokens_left = 4096}, 128, kLimits);
  EXPECT_EQ(round.num_tokens, 128);
  EXPECT_THAT(round.range_ends, ElementsAre(64, 128));
}

TEST(CostModelTest, FitsAChunkBesideStreams) {
  const CostModel model = Large(2);
  const std::vector<CostModel::Part> streams(
      20, {.context = 30000, .num_tokens = 1});
  const CostModel::Part chunk = {.context = 0, .num_tokens = 512};
  EXPECT_EQ(model.LargestChunk(streams, chunk, 20, absl::Seconds(1)), 512);
  const absl::Duration limit =
      model.Time(model.HeadSplit(streams, 20)) + absl::Milliseconds(3);
  const int fits = model.LargestChunk(streams, chunk, 20, limit);
  EXPECT_GE(fits, 64);
  EXPECT_LT(fits, 512);
  EXPECT_EQ(fits % 64, 0);
  EXPECT_EQ(model.LargestChunk(streams, chunk, 20, absl::ZeroDuration()), 64);
}

}  // namespace
}  // namespace lapidary
