// A request's logits depend neither on the size of its chunks, nor on who
// shares its batch, nor on the number of threads: bit for bit.

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/golden_model.h"

namespace lapidary {
namespace {

using Param = std::tuple<std::string, DType>;

class IndependenceTest : public ::testing::TestWithParam<Param> {
 protected:
  GoldenRun Start(int max_step_tokens, int max_sequences = 1,
                  int threads = 0) const {
    return golden_.Start({.compute = std::get<1>(GetParam()),
                          .cpu = {.threads = threads},
                          .max_step_tokens = max_step_tokens,
                          .max_tokens = 4200,
                          .max_sequences = max_sequences});
  }

  const GoldenModel& golden_ = GoldenModel::Get(std::get<0>(GetParam()));
};

INSTANTIATE_TEST_SUITE_P(
    Models, IndependenceTest,
    ::testing::Combine(::testing::Values("unified_mini", "unified_wide"),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    [](const auto& info) {
      const std::string& model = std::get<0>(info.param);
      return (model == "unified_mini" ? "Mini" : "Wide") +
             NameOf(std::get<1>(info.param));
    });

TEST_P(IndependenceTest, OfChunks) {
  const GoldenRun run = Start(/*max_step_tokens=*/4200);
  for (const ParityCase& parity_case : golden_.cases()) {
    const int size = static_cast<int>(parity_case.tokens.size());
    if (size > 4200) continue;
    const LogitsByPosition whole = RunPrompt(run, parity_case, size);
    for (const int chunk : {1, 63, 64, 65, 1000}) {
      if (chunk >= size || (chunk == 1 && size > 200)) continue;
      EXPECT_TRUE(RunPrompt(run, parity_case, chunk) == whole)
          << parity_case.id << " in chunks of " << chunk;
    }
  }
}

TEST_P(IndependenceTest, OfThreads) {
  const ParityCase& parity_case = golden_.Case("text_200");
  const LogitsByPosition one =
      RunPrompt(Start(200, /*max_sequences=*/1, /*threads=*/1), parity_case,
                /*chunk=*/200);
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(RunPrompt(Start(200, /*max_sequences=*/1, threads), parity_case,
                          /*chunk=*/200) == one)
        << threads << " threads";
  }
}

// Requests of all lengths advance together, each in chunks of its own size, and
// leave as they end.
TEST_P(IndependenceTest, OfTheBatch) {
  std::vector<const ParityCase*> cases;
  for (const ParityCase& parity_case : golden_.cases()) {
    if (parity_case.tokens.size() <= 1100) cases.push_back(&parity_case);
  }
  const GoldenRun run =
      Start(/*max_step_tokens=*/1100, static_cast<int>(cases.size()));
  const std::vector<int> chunks = {1, 2, 5, 33, 64, 100, 7, 130, 65};
  std::vector<SequenceDriver::Sequence> sequences;
  std::vector<LogitsByPosition> together(cases.size());
  for (const ParityCase* parity_case : cases) {
    sequences.push_back(run.driver->NewSequence(parity_case->tokens));
  }

  while (true) {
    std::vector<SequenceDriver::Part> parts;
    std::vector<std::pair<size_t, int>> rows;  // Case and position.
    for (size_t i = 0; i < cases.size(); ++i) {
      const int start = sequences[i].num_computed;
      const int left = static_cast<int>(cases[i]->tokens.size()) - start;
      if (left == 0) continue;
      SequenceDriver::Part part{.sequence = &sequences[i]};
      part.num_tokens = std::min(left, chunks[i % chunks.size()]);
      for (const int position : cases[i]->positions) {
        if (position < start || position >= start + part.num_tokens) continue;
        part.logit_positions.push_back(position);
        rows.emplace_back(i, position);
      }
      parts.push_back(std::move(part));
    }
    if (parts.empty()) break;
    const absl::StatusOr<Tensor> logits = run.driver->Step(parts);
    ASSERT_OK(logits);
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto* row =
          static_cast<const float*>(logits->row(static_cast<int>(r)));
      together[rows[r].first][rows[r].second].assign(row, row + logits->cols);
    }
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_TRUE(RunPrompt(run, *cases[i], /*chunk=*/1100) == together[i])
        << cases[i]->id;
  }
}

}  // namespace
}  // namespace lapidary
