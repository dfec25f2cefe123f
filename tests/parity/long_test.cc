// 16K tokens in fp32 against a float64 reference, on one rank and on several.
// tools/parity runs the longer cases of cases_long.json.

#include <cstdio>
#include <string>

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

constexpr int kMaxTokens = 16400;
constexpr int kRangeTokens = 1024;

// How the prompt is prefilled.
struct Way {
  std::string name;
  int num_ranks;
  Schedule schedule;
};

Way InRounds(const std::string& name, int num_ranks, Replica replica) {
  return {name,
          num_ranks,
          {.rounds = SequenceDriver::Rounds{
               .round_tokens = num_ranks * kRangeTokens / 2,
               .max_range_tokens = kRangeTokens,
               .cost = {.fixed = 1, .per_position = 1e-4},
               .replica = replica}}};
}

class LongTest : public ::testing::TestWithParam<Way> {};

INSTANTIATE_TEST_SUITE_P(
    Ways, LongTest,
    ::testing::Values(Way{"One", 1, {.chunk = 1000}},
                      Way{"HeadSplitOf2", 2, {.chunk = 1000}},
                      Way{"HeadSplitOf4", 4, {.chunk = 1000}},
                      InRounds("RoundsOf2", 2, Replica::kUse),
                      InRounds("RoundsOf4", 4, Replica::kUse),
                      InRounds("RoundsOf4WithoutReplica", 4, Replica::kNone)),
    [](const auto& info) { return info.param.name; });

TEST_P(LongTest, LogitsAndGreedyTokensMatchAt16K) {
  const Way& way = GetParam();
  const GoldenModel& golden = GoldenModel::Get("unified_mini");
  const auto cases = ReadParityCases(golden.Path("cases_long.json"));
  ASSERT_OK(cases);
  const ParityCase& parity_case = cases->front();
  ASSERT_EQ(parity_case.id, "long_16384");
  const auto reference =
      SafetensorsFile::Open(golden.Path("reference_long.safetensors"));
  ASSERT_OK(reference);
  const GoldenGroup run =
      golden.StartGroup({.num_ranks = way.num_ranks,
                         .max_step_tokens = 1000,
                         .max_range_tokens = kRangeTokens,
                         .gather_pages = 64,
                         .replica_pages = NumPages(kMaxTokens),
                         .max_tokens = kMaxTokens});
  const absl::StatusOr<ParityResult> result = CheckCase(
      *run.driver, parity_case, **reference, way.schedule, golden.suppressed());
  ASSERT_OK(result);
  EXPECT_EQ(Violation(*result, BoundsFor(DType::kF32, 16384)), "");
  EXPECT_EQ(result->greedy_equal, 8);
  std::printf("%s: max %.2e\n", way.name.c_str(), result->errors.max_abs);
}

}  // namespace
}  // namespace lapidary
