// The shorter cases on every instruction set that the machine has.

#include <string>
#include <tuple>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "tests/parity/golden_model.h"
#include "tools/parity_check.h"

namespace lapidary {
namespace {

using Param = std::tuple<std::string, DType, Isa>;

class IsaTest : public ::testing::TestWithParam<Param> {};

INSTANTIATE_TEST_SUITE_P(
    Models, IsaTest,
    ::testing::Combine(::testing::Values("unified_mini", "unified_wide"),
                       ::testing::Values(DType::kF32, DType::kBf16),
                       ::testing::ValuesIn(SupportedIsas())),
    [](const auto& info) {
      const std::string& model = std::get<0>(info.param);
      return (model == "unified_mini" ? "Mini" : "Wide") +
             NameOf(std::get<1>(info.param)) + "_" +
             std::string(IsaName(std::get<2>(info.param)));
    });

TEST_P(IsaTest, LogitsAndGreedyTokensMatch) {
  const auto& [model, compute, isa] = GetParam();
  // The wide model costs portable code seconds for each thousand tokens.
  const size_t max_tokens = isa == Isa::kPortable ? 200 : 1030;
  const GoldenModel& golden = GoldenModel::Get(model);
  const GoldenRun run = golden.Start({.compute = compute,
                                      .cpu = {.threads = 0, .isa = isa},
                                      .max_step_tokens = 128,
                                      .max_tokens = 1100});
  LogitErrors pooled;
  for (const ParityCase& parity_case : golden.cases()) {
    if (parity_case.tokens.size() > max_tokens) continue;
    const absl::StatusOr<ParityResult> result =
        CheckCase(*run.driver, parity_case, golden.reference(), {.chunk = 128},
                  golden.suppressed());
    ASSERT_OK(result);
    EXPECT_EQ(Violation(*result, BoundsFor(compute, 0)), "") << parity_case.id;
    pooled.Add(result->errors);
  }
  std::printf("max %.2e pooled ratio %.3f\n", pooled.max_abs,
              pooled.ratio().value_or(0));
  if (compute == DType::kBf16) {
    ASSERT_TRUE(pooled.ratio().has_value());
    EXPECT_LE(*pooled.ratio(), kMaxPooledRatio);
  }
}

}  // namespace
}  // namespace lapidary
