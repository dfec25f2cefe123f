// 16K tokens in fp32 against a float64 reference.  tools/parity runs the longer
// cases of cases_long.json.

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/golden_model.h"
#include "tools/parity_check.h"

namespace lapidary {
namespace {

TEST(LongTest, LogitsAndGreedyTokensMatchAt16K) {
  const GoldenModel& golden = GoldenModel::Get("unified_mini");
  const auto cases = ReadParityCases(golden.Path("cases_long.json"));
  ASSERT_OK(cases);
  const ParityCase& parity_case = cases->front();
  ASSERT_EQ(parity_case.id, "long_16384");
  const auto reference =
      SafetensorsFile::Open(golden.Path("reference_long.safetensors"));
  ASSERT_OK(reference);
  const GoldenRun run = golden.Start(
      {.compute = DType::kF32, .max_step_tokens = 1000, .max_tokens = 16400});
  const absl::StatusOr<ParityResult> result =
      CheckCase(*run.driver, parity_case, **reference, {.chunk = 1000},
                golden.suppressed());
  ASSERT_OK(result);
  EXPECT_EQ(Violation(*result, BoundsFor(DType::kF32, 16384)), "");
  EXPECT_EQ(result->greedy_equal, 8);
  std::printf("max %.2e\n", result->errors.max_abs);
}

}  // namespace
}  // namespace lapidary
