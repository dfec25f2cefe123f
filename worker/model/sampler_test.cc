#include "worker/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(int size, double deviation, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

SampledToken SampleOnce(std::vector<float> logits,
                        const SamplingOptions& options,
                        const TokenHistory& history = TokenHistory({}),
                        int position = 0) {
  Sampler sampler(static_cast<int>(logits.size()));
  return sampler.Sample(logits, options, history, position);
}

// The distribution that the options describe, step by step and in doubles.
std::vector<double> Exact(std::vector<float> logits,
                          const SamplingOptions& options) {
  const int n = static_cast<int>(logits.size());
  for (const auto& [token, bias] : options.logit_bias) logits[token] += bias;
  for (const TokenId token : options.suppressed) logits[token] = -kInfinity;
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return logits[a] > logits[b]; });
  std::vector<double> p(n);
  for (int i = 0; i < n; ++i) {
    p[i] =
        std::exp((double{logits[i]} - logits[order[0]]) / options.temperature);
  }
  int kept = options.top_k > 0 ? std::min(options.top_k, n) : n;
  double total = 0;
  for (int i = 0; i < kept; ++i) total += p[order[i]];
  double sum = 0;
  for (int i = 0; i < kept; ++i) {
    sum += p[order[i]];
    if (options.top_p < 1 && sum >= options.top_p * total) kept = i + 1;
  }
  while (p[order[kept - 1]] < options.min_p) --kept;
  std::vector<double> result(n);
  total = 0;
  for (int i = 0; i < kept; ++i) total += p[order[i]];
  for (int i = 0; i < kept; ++i) result[order[i]] = p[order[i]] / total;
  return result;
}

// Pearson's statistic stays below its mean by four deviations, in the tests'
// fixed draws.  Tokens that are seldom drawn are counted together.
void ExpectDrawsFollow(const std::vector<double>& exact,
                       const std::vector<int>& counts) {
  const int draws = std::accumulate(counts.begin(), counts.end(), 0);
  double statistic = 0, rare_expected = 0, rare_count = 0;
  int cells = 0;
  const auto add = [&](double expected, double count) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < exact.size(); ++i) {
    if (exact[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " is excluded";
    } else if (exact[i] * draws < 10) {
      rare_expected += exact[i] * draws;
      rare_count += counts[i];
    } else {
      add(exact[i] * draws, counts[i]);
    }
  }
  if (rare_expected > 1) add(rare_expected, rare_count);
  const int freedom = std::max(cells - 1, 1);
  EXPECT_LE(statistic, freedom + 4 * std::sqrt(2.0 * freedom))
      << "with " << freedom << " degrees of freedom";
}

struct DistributionCase {
  std::string name;
  SamplingOptions options;
  int vocab_size = 50;
  double deviation = 2.0;
};

class SamplerDistributionTest
    : public ::testing::TestWithParam<DistributionCase> {};

TEST_P(SamplerDistributionTest, DrawsFollowTheExactDistribution) {
  const DistributionCase& param = GetParam();
  const std::vector<float> logits =
      RandomLogits(param.vocab_size, param.deviation, /*seed=*/7);
  Sampler sampler(param.vocab_size);
  const TokenHistory history({});
  std::vector<int> counts(param.vocab_size);
  for (int position = 0; position < 8000; ++position) {
    std::vector<float> copy = logits;
    ++counts[sampler.Sample(copy, param.options, history, position).token];
  }
  ExpectDrawsFollow(Exact(logits, param.options), counts);
}

INSTANTIATE_TEST_SUITE_P(
    Options, SamplerDistributionTest,
    ::testing::Values(
        DistributionCase{"Temperature1", {}},
        DistributionCase{"Temperature03", {.temperature = 0.3f}},
        DistributionCase{"Temperature5", {.temperature = 5.0f}},
        DistributionCase{"TopK", {.top_k = 5}},
        DistributionCase{"TopKOne", {.top_k = 1}},
        DistributionCase{"TopKBeyondVocabulary", {.top_k = 1000}},
        DistributionCase{"TopP", {.top_p = 0.8f}},
        DistributionCase{"TopPAlmostAll", {.top_p = 0.9999f}},
        DistributionCase{"TopPTiny", {.top_p = 1e-6f}},
        DistributionCase{"MinP", {.min_p = 0.1f}},
        DistributionCase{"MinPOne", {.min_p = 1.0f}},
        DistributionCase{"TopKTopP", {.top_k = 10, .top_p = 0.9f}},
        DistributionCase{"TopKMinP", {.top_k = 20, .min_p = 0.05f}},
        DistributionCase{"TopPMinP", {.top_p = 0.97f, .min_p = 0.02f}},
        DistributionCase{
            "All",
            {.temperature = 1.7f, .top_k = 30, .top_p = 0.9f, .min_p = 0.03f}},
        DistributionCase{
            "GenerationDefaults", {.top_k = 64, .top_p = 0.95f}, 2000},
        DistributionCase{"ManyBlocks", {}, 3000, 0.7},
        DistributionCase{"LargeNucleus", {.top_p = 0.95f}, 3000, 0.7},
        DistributionCase{"Bias", {.logit_bias = {{3, 4.0f}, {7, -50.0f}}}},
        DistributionCase{"Suppressed", {.suppressed = {0, 1, 2, 3}}}),
    [](const auto& info) { return info.param.name; });

TEST(SamplerTest, DrawIsAFunctionOfSeedAndPosition) {
  const std::vector<float> logits = RandomLogits(1000, 1.0, 1);
  std::set<TokenId> by_position, by_seed;
  for (int i = 0; i < 20; ++i) {
    const auto draw = [&](uint64_t seed, int position) {
      return SampleOnce(logits, {.seed = seed}, TokenHistory({}), position)
          .token;
    };
    EXPECT_EQ(draw(5, i), draw(5, i));
    by_position.insert(draw(5, i));
    by_seed.insert(draw(i, 5));
  }
  EXPECT_GT(by_position.size(), 10u);
  EXPECT_GT(by_seed.size(), 10u);
}

TEST(SamplerTest, ScratchOfEarlierDrawsDoesNotMatter) {
  const std::vector<float> logits = RandomLogits(1000, 1.0, 1);
  const SamplingOptions options{.top_k = 64, .top_p = 0.95f, .seed = 3};
  const SampledToken fresh = SampleOnce(logits, options);
  Sampler sampler(1000);
  for (const SamplingOptions& before :
       {SamplingOptions{.top_p = 0.5f}, SamplingOptions{.logprobs = 20}}) {
    std::vector<float> other = RandomLogits(1000, 3.0, 2);
    sampler.Sample(other, before, TokenHistory({}), 9);
    std::vector<float> copy = logits;
    EXPECT_EQ(sampler.Sample(copy, options, TokenHistory({}), 0).token,
              fresh.token);
  }
}

TEST(SamplerTest, UniformNumbersAreUniformAndUnrelated) {
  double sum = 0, product = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double u = UniformAt(42, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    product += (u - 0.5) * (UniformAt(43, i) - 0.5);
  }
  EXPECT_NEAR(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(product / n, 0.0, 4.0 / 12 / std::sqrt(1.0 * n));
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfATie) {
  EXPECT_EQ(SampleOnce({1, 3, 2, 3}, {.temperature = 0}).token, 1);
}

TEST(SamplerTest, TopKTakesTheLowestIdsOfATie) {
  const std::vector<float> logits(1000, 1.0f);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_LT(SampleOnce(logits, {.top_k = 3, .seed = seed}).token, 3);
  }
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  EXPECT_EQ(SampleOnce({1, 2, 3, 2.999f}, {.temperature = 1e-30f}).token, 2);
}

TEST(SamplerTest, NeverDrawsWhatIsSuppressed) {
  const SamplingOptions greedy{.temperature = 0, .suppressed = {1, 3}};
  EXPECT_EQ(SampleOnce({1, 9, 2, 8}, greedy).token, 2);
}

TEST(SamplerTest, IgnoresIdsThatTheVocabularyLacks) {
  const SamplingOptions options{.temperature = 0,
                                .logit_bias = {{-1, 5.0f}, {4, 5.0f}},
                                .suppressed = {-7, 1000}};
  EXPECT_EQ(SampleOnce({1, 9, 2, 8}, options).token, 1);
}

// What an option makes of logits shows in who wins, by how much bias.
class SamplerPenaltyTest : public ::testing::Test {
 protected:
  SamplerPenaltyTest() : history_(std::vector<TokenId>{0, 1}) {
    history_.Add(1);
    history_.Add(2);
    history_.Add(2);
  }

  // The logits as they stand after the draw, which overwrites them.
  std::vector<float> Adjusted(std::vector<float> logits,
                              SamplingOptions options) {
    Sampler sampler(static_cast<int>(logits.size()));
    sampler.Sample(logits, options, history_, 0);
    return logits;
  }

  TokenHistory history_;
};

TEST_F(SamplerPenaltyTest, RepetitionActsOnPromptAndOutput) {
  EXPECT_THAT(Adjusted({4, -4, 1, 1}, {.repetition_penalty = 2.0f}),
              ElementsAre(2, -8, 0.5f, 1));
}

TEST_F(SamplerPenaltyTest, PresenceActsOnceOnOutput) {
  EXPECT_THAT(Adjusted({4, 4, 4, 4}, {.presence_penalty = 1.5f}),
              ElementsAre(4, 2.5f, 2.5f, 4));
}

TEST_F(SamplerPenaltyTest, FrequencyActsPerOccurrenceInOutput) {
  EXPECT_THAT(Adjusted({4, 4, 4, 4}, {.frequency_penalty = 0.5f}),
              ElementsAre(4, 3.5f, 3, 4));
}

TEST_F(SamplerPenaltyTest, BiasComesFirst) {
  EXPECT_THAT(Adjusted({4, 4, 4, 4}, {.repetition_penalty = 2.0f,
                                      .presence_penalty = 1.0f,
                                      .logit_bias = {{2, 4.0f}}}),
              ElementsAre(2, 1, 3, 4));
}

TEST(SamplerLogprobTest, AreThoseOfTheModelsOwnDistribution) {
  const std::vector<float> logits = {1, 3, 2, 0};
  const double z = std::exp(1) + std::exp(3) + std::exp(2) + 1;
  const SampledToken sampled = SampleOnce(logits, {.temperature = 0,
                                                   .logit_bias = {{2, 10.0f}},
                                                   .suppressed = {1},
                                                   .logprobs = 2});
  EXPECT_EQ(sampled.token, 2);
  EXPECT_NEAR(sampled.logprob, 2 - std::log(z), 1e-6);
  ASSERT_THAT(sampled.top, SizeIs(2));
  EXPECT_EQ(sampled.top[0].token, 1);
  EXPECT_NEAR(sampled.top[0].logprob, 3 - std::log(z), 1e-6);
  EXPECT_EQ(sampled.top[1].token, 2);
}

TEST(SamplerLogprobTest, ZeroAlternativesStillGiveTheTokensOwn) {
  const SampledToken sampled =
      SampleOnce({0, 0}, {.temperature = 0, .logprobs = 0});
  EXPECT_NEAR(sampled.logprob, -std::log(2), 1e-6);
  EXPECT_THAT(sampled.top, IsEmpty());
}

TEST(SamplerLogprobTest, SumToOneOverTheVocabulary) {
  const std::vector<float> logits = RandomLogits(3000, 4.0, 3);
  Sampler sampler(3000);
  std::vector<float> copy = logits;
  const SampledToken sampled =
      sampler.Sample(copy, {.logprobs = 3000}, TokenHistory({}), 0);
  double sum = 0;
  for (const TokenLogprob& top : sampled.top) sum += std::exp(top.logprob);
  EXPECT_NEAR(sum, 1.0, 1e-5);
}

class SamplerBadRowTest : public ::testing::TestWithParam<SamplingOptions> {};

INSTANTIATE_TEST_SUITE_P(
    Options, SamplerBadRowTest,
    ::testing::Values(SamplingOptions{.temperature = 0}, SamplingOptions{},
                      SamplingOptions{.top_k = 2},
                      SamplingOptions{.top_p = 0.9f},
                      SamplingOptions{.min_p = 0.1f},
                      SamplingOptions{.top_k = 2, .logprobs = 2}));

TEST_P(SamplerBadRowTest, NanIsNeverDrawn) {
  EXPECT_EQ(SampleOnce({kNan, kNan, -kInfinity, 1, kNan}, GetParam()).token, 3);
}

TEST_P(SamplerBadRowTest, InfinityWins) {
  EXPECT_EQ(SampleOnce({1, kNan, kInfinity, kInfinity}, GetParam()).token, 2);
}

TEST_P(SamplerBadRowTest, NothingPossibleGivesTheLowestId) {
  EXPECT_EQ(SampleOnce({kNan, -kInfinity, kNan}, GetParam()).token, 0);
  EXPECT_EQ(SampleOnce({-kInfinity, -kInfinity}, GetParam()).token, 0);
}

}  // namespace
}  // namespace lapidary
