// Groups of several ranks, in both layouts, against the stored references and
// against one rank.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "tests/parity/golden_model.h"
#include "tools/parity_check.h"
#include "tools/sequence_driver.h"

namespace lapidary {
namespace {

using Replica = SequenceDriver::Replica;
using Schedule = SequenceDriver::Schedule;

// Of logits, to 16384 tokens: only the order of sums differs.
constexpr double kMaxDifference = 5e-4;

// How a prompt is prefilled.
struct Way {
  std::string name;
  Schedule schedule;
  int gather_pages = 256;
};

Schedule InRounds(int round_tokens, int max_range_tokens, Replica replica) {
  return {.rounds =
              SequenceDriver::Rounds{.round_tokens = round_tokens,
                                     .max_range_tokens = max_range_tokens,
                                     .cost = {.fixed = 1, .per_position = 1e-3},
                                     .replica = replica}};
}

std::vector<Way> Ways() {
  return {
      {"HeadSplit", {.chunk = 300}},
      {"HeadSplitSmallBuffer", {.chunk = 300}, /*gather_pages=*/2},
      {"Replica", InRounds(640, 640, Replica::kUse)},
      {"Gathered", InRounds(640, 640, Replica::kNone)},
      {"GatheredSmallBuffer", InRounds(640, 640, Replica::kNone), 2},
      {"SmallRounds", InRounds(128, 640, Replica::kUse)},
  };
}

// Of the model that takes ten times as long.
std::vector<Way> FewWays() {
  return {
      {"HeadSplit", {.chunk = 300}},
      {"GatheredSmallBuffer", InRounds(640, 640, Replica::kNone), 2},
      {"SmallRounds", InRounds(128, 640, Replica::kUse)},
  };
}

using Param = std::tuple<std::string, int, Way>;

std::string NameOfParam(const ::testing::TestParamInfo<Param>& info) {
  return absl::StrCat(std::get<2>(info.param).name, "Of",
                      std::get<1>(info.param));
}

class GroupTest : public ::testing::TestWithParam<Param> {};

INSTANTIATE_TEST_SUITE_P(Mini, GroupTest,
                         ::testing::Combine(::testing::Values("unified_mini"),
                                            ::testing::Values(1, 2, 4, 8),
                                            ::testing::ValuesIn(Ways())),
                         NameOfParam);
INSTANTIATE_TEST_SUITE_P(Wide, GroupTest,
                         ::testing::Combine(::testing::Values("unified_wide"),
                                            ::testing::Values(2, 8),
                                            ::testing::ValuesIn(FewWays())),
                         NameOfParam);

// Of the cases' prompts with what is generated.
int Longest(const GoldenModel& golden) {
  size_t longest = 0;
  for (const ParityCase& c : golden.cases()) {
    longest = std::max(longest, c.tokens.size() + c.greedy.size());
  }
  return static_cast<int>(longest);
}

GoldenGroup Start(const GoldenModel& golden, DType compute, int num_ranks,
                  const Way& way) {
  const auto& rounds = way.schedule.rounds;
  const int longest = Longest(golden);
  const bool replica = rounds.has_value() && rounds->replica == Replica::kUse;
  return golden.StartGroup(
      {.compute = compute,
       .num_ranks = num_ranks,
       .max_step_tokens = 300,
       .max_range_tokens = rounds.has_value() ? rounds->max_range_tokens : 0,
       .gather_pages = way.gather_pages,
       .replica_pages = replica ? NumPages(longest) : 0,
       .max_tokens = longest});
}

// Logits and greedy tokens of every stored case.
TEST_P(GroupTest, MatchesTheReference) {
  const auto& [name, num_ranks, way] = GetParam();
  if (num_ranks == 1 && way.schedule.rounds.has_value()) {
    GTEST_SKIP() << "a group of one has no rounds";
  }
  const GoldenModel& golden = GoldenModel::Get(name);
  const GoldenGroup run = Start(golden, DType::kF32, num_ranks, way);
  double worst = 0;
  for (const ParityCase& c : golden.cases()) {
    const absl::StatusOr<ParityResult> result = CheckCase(
        *run.driver, c, golden.reference(), way.schedule, golden.suppressed());
    ASSERT_OK(result);
    EXPECT_EQ(Violation(*result, BoundsFor(DType::kF32, 16384)), "") << c.id;
    worst = std::max(worst, result->errors.max_abs);
  }
  std::printf("%s of %d: max error %.2e\n", way.name.c_str(), num_ranks, worst);
  // Of the bound, what one rank leaves for the order of sums.
  EXPECT_LE(worst, kMaxDifference);
}

class Bf16GroupTest : public ::testing::TestWithParam<Param> {};

INSTANTIATE_TEST_SUITE_P(
    Mini, Bf16GroupTest,
    ::testing::Combine(
        ::testing::Values("unified_mini"), ::testing::Values(2, 4),
        ::testing::Values(Way{"HeadSplit", {.chunk = 300}},
                          Way{"Replica", InRounds(640, 640, Replica::kUse)},
                          Way{"Gathered", InRounds(640, 640, Replica::kNone)})),
    NameOfParam);
INSTANTIATE_TEST_SUITE_P(
    Wide, Bf16GroupTest,
    ::testing::Combine(
        ::testing::Values("unified_wide"), ::testing::Values(2, 4),
        ::testing::Values(Way{"HeadSplit", {.chunk = 300}},
                          Way{"Replica", InRounds(640, 640, Replica::kUse)})),
    NameOfParam);

// No further from the reference than its own bf16 run is, nearly.
TEST_P(Bf16GroupTest, ErrsLikeTheReferenceInBf16) {
  const auto& [name, num_ranks, way] = GetParam();
  const GoldenModel& golden = GoldenModel::Get(name);
  const GoldenGroup run = Start(golden, DType::kBf16, num_ranks, way);
  LogitErrors pooled;
  for (const ParityCase& c : golden.cases()) {
    const absl::StatusOr<ParityResult> result = CheckCase(
        *run.driver, c, golden.reference(), way.schedule, golden.suppressed());
    ASSERT_OK(result);
    EXPECT_EQ(Violation(*result, BoundsFor(DType::kBf16, 16384)), "") << c.id;
    pooled.Add(result->errors);
  }
  ASSERT_TRUE(pooled.ratio().has_value());
  std::printf("%s of %d: pooled ratio %.3f\n", way.name.c_str(), num_ranks,
              *pooled.ratio());
  EXPECT_LE(*pooled.ratio(), kMaxPooledRatio);
}

class BorderTest : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, BorderTest, ::testing::Values(2, 4, 8),
                         [](const auto& info) {
                           return absl::StrCat("Of", info.param);
                         });

// The largest difference of two runs, at any position.
double MaxDifference(const LogitsByPosition& a, const LogitsByPosition& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (const auto& [position, logits] : a) {
    const std::vector<float>& others = b.at(position);
    for (size_t v = 0; v < logits.size(); ++v) {
      const double difference = std::abs(double{logits[v]} - others[v]);
      worst = difference <= worst ? worst : difference;  // NaN stays.
    }
  }
  return worst;
}

// Every position, those in the window behind each range border among them.
TEST_P(BorderTest, EqualsOneRankAtEveryPosition) {
  const GoldenModel& golden = GoldenModel::Get("unified_mini");
  constexpr int kTokens = 1000;
  std::vector<TokenId> tokens(kTokens);
  for (int i = 0; i < kTokens; ++i) tokens[i] = 200 + i * 7919 % 5000;
  std::vector<int> positions(kTokens);
  std::iota(positions.begin(), positions.end(), 0);

  const auto run = [&](int num_ranks, const Schedule& schedule) {
    const GoldenGroup group =
        golden.StartGroup({.num_ranks = num_ranks,
                           .max_step_tokens = kTokens,
                           .max_logit_rows = kTokens,
                           .max_range_tokens = 512,
                           .gather_pages = 3,
                           .replica_pages = NumPages(kTokens),
                           .max_tokens = kTokens});
    SequenceDriver::Sequence sequence = group.driver->NewSequence(tokens);
    return RunRest(*group.driver, sequence, schedule, positions);
  };
  const LogitsByPosition one = run(1, {.chunk = kTokens});
  for (const int round : {64, 192, 512, 1024}) {
    for (const Replica replica : {Replica::kUse, Replica::kNone}) {
      const double difference =
          MaxDifference(one, run(GetParam(), InRounds(round, 512, replica)));
      EXPECT_LE(difference, kMaxDifference) << "rounds of " << round;
    }
  }
  EXPECT_LE(MaxDifference(one, run(GetParam(), {.chunk = 130})),
            kMaxDifference);
}

}  // namespace
}  // namespace lapidary
