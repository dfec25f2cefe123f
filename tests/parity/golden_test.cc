// Every stored case, its whole prompt in one step, against the reference.

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/golden_model.h"
#include "tools/parity_check.h"

namespace lapidary {
namespace {

constexpr int kMaxTokens = 8300;

using Param = std::tuple<std::string, DType>;

class GoldenTest : public ::testing::TestWithParam<Param> {
 protected:
  const GoldenModel& golden_ = GoldenModel::Get(std::get<0>(GetParam()));
  const DType compute_ = std::get<1>(GetParam());
  const GoldenRun run_ = golden_.Start({.compute = compute_,
                                        .max_step_tokens = kMaxTokens,
                                        .max_tokens = kMaxTokens});
};

INSTANTIATE_TEST_SUITE_P(
    Models, GoldenTest,
    ::testing::Combine(::testing::Values("unified_mini", "unified_wide"),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    [](const auto& info) {
      const std::string& model = std::get<0>(info.param);
      return (model == "unified_mini" ? "Mini" : "Wide") +
             NameOf(std::get<1>(info.param));
    });

TEST_P(GoldenTest, LogitsAndGreedyTokensMatch) {
  LogitErrors pooled;
  for (const ParityCase& parity_case : golden_.cases()) {
    const absl::StatusOr<ParityResult> result =
        CheckCase(*run_.driver, parity_case, golden_.reference(),
                  {.chunk = kMaxTokens}, golden_.suppressed());
    ASSERT_OK(result);
    const ParityBounds bounds =
        BoundsFor(compute_, static_cast<int>(parity_case.tokens.size()));
    EXPECT_EQ(Violation(*result, bounds), "") << parity_case.id;
    pooled.Add(result->errors);
    std::printf("%-10s max %.2e rms %.2e ratio %.3f greedy %d of %zu\n",
                parity_case.id.c_str(), result->errors.max_abs,
                result->errors.rms(), result->errors.ratio().value_or(0),
                result->greedy_equal, parity_case.greedy.size());
  }
  std::printf("pooled ratio %.3f\n", pooled.ratio().value_or(0));
  if (compute_ == DType::kBf16) {
    ASSERT_TRUE(pooled.ratio().has_value());
    EXPECT_LE(*pooled.ratio(), kMaxPooledRatio);
  }
}

// The residual stream after each layer; the stored last entry is normed.
class GoldenHiddenTest : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Models, GoldenHiddenTest,
                         ::testing::Values("unified_mini", "unified_wide"));

TEST_P(GoldenHiddenTest, MatchLayerByLayerInFp32) {
  const GoldenModel& golden = GoldenModel::Get(GetParam());
  const ParityCase& parity_case = golden.Case("text_200");
  const StoredTensor* stored = golden.reference().Find("text_200.hidden");
  ASSERT_NE(stored, nullptr);
  const GoldenRun run = golden.Start(
      {.compute = DType::kF32, .max_step_tokens = 200, .max_tokens = 200});
  const int num_layers = run.model->config().num_layers();
  const int h = run.model->config().hidden_size;
  ASSERT_EQ(
      stored->shape,
      (std::vector<int64_t>{static_cast<int64_t>(parity_case.positions.size()),
                            num_layers + 1, h}));
  const auto* expected = reinterpret_cast<const float*>(stored->data.data());

  std::vector<double> max_error(num_layers + 1);
  const auto compare = [&](int layer, Tensor hidden) {
    if (layer == num_layers) return;  // Stored normed, as the next one.
    const int entry = std::min(layer, num_layers);
    for (size_t i = 0; i < parity_case.positions.size(); ++i) {
      const auto* row =
          static_cast<const float*>(hidden.row(parity_case.positions[i]));
      for (int c = 0; c < h; ++c) {
        const double error = std::abs(
            double{row[c]} - expected[(i * (num_layers + 1) + entry) * h + c]);
        max_error[entry] = std::max(max_error[entry], error);
      }
    }
  };
  SequenceDriver::Sequence sequence =
      run.driver->NewSequence(parity_case.tokens);
  ASSERT_OK(run.driver->Prefill(
      sequence, /*chunk=*/200, {}, [](int, std::span<const float>) {},
      compare));
  for (int layer = 0; layer <= num_layers; ++layer) {
    EXPECT_LE(max_error[layer], 2e-3) << "entry " << layer;
    std::printf("entry %d: max %.2e\n", layer, max_error[layer]);
  }
}

}  // namespace
}  // namespace lapidary
