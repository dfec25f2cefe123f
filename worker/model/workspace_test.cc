#include "worker/model/workspace.h"

#include <memory>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

constexpr LayerConfig kWindowLayer = {.type = LayerType::kWindow,
                                      .head_dim = 16,
                                      .num_kv_heads = 2,
                                      .k_eq_v = false,
                                      .key_half = 8};
constexpr LayerConfig kGlobalLayer = {.type = LayerType::kGlobal,
                                      .head_dim = 32,
                                      .num_kv_heads = 1,
                                      .k_eq_v = true,
                                      .key_half = 4};

// Of rank 1 of 4, which hold half of the window layer's KV heads each.
class WorkspaceTest : public ::testing::Test {
 protected:
  WorkspaceTest() {
    config_.vocab_size = 64;
    config_.hidden_size = 48;
    config_.intermediate_size = 80;  // Five blocks of 16 columns.
    config_.num_heads = 8;
    config_.window = 70;
    config_.window_rope.inverse_frequencies.assign(8, 0.1f);
    config_.global_rope.inverse_frequencies.assign(4, 0.1f);
    config_.layers = {kWindowLayer, kGlobalLayer};
  }

  std::unique_ptr<Workspace> NewWorkspace() {
    return Workspace::Create(config_, shape_, DType::kF32, *backend_).value();
  }

  static void ExpectShape(const Tensor& tensor, int rows, int cols) {
    EXPECT_EQ(tensor.rows, rows);
    EXPECT_EQ(tensor.cols, cols);
  }

  const std::unique_ptr<Backend> backend_ =
      NewCpuBackend({.threads = 1}).value();
  const Workspace::Shape shape_ = {.max_step_tokens = 10,
                                   .max_range_tokens = 64,
                                   .max_logit_rows = 3,
                                   .rank = 1,
                                   .num_ranks = 4};
  GemmaConfig config_;
};

TEST_F(WorkspaceTest, HeadSplitHasAllTokensOfTheRanksHeads) {
  const auto workspace = NewWorkspace();
  workspace->SetRows({.layout = Layout::kHeadSplit, .tokens = 10, .logits = 3});
  ExpectShape(workspace->residual, 10, 48);
  ExpectShape(workspace->gated, 10, 16);
  const AttentionTensors window = workspace->Attention(kWindowLayer);
  ExpectShape(window.q, 10, 2 * 16);
  ExpectShape(window.keys, 10, 16);
  ExpectShape(window.out, 10, 2 * 16);
  const AttentionTensors global = workspace->Attention(kGlobalLayer);
  ExpectShape(global.q, 10, 2 * 32);
  ExpectShape(global.keys, 10, 2 * 4);
  ExpectShape(global.values, 10, 32);
}

TEST_F(WorkspaceTest, HeadSplitPutsQueriesWhereTheOthersAreGathered) {
  const auto workspace = NewWorkspace();
  workspace->SetRows({.layout = Layout::kHeadSplit, .tokens = 10});
  const AttentionTensors t = workspace->Attention(kGlobalLayer);
  ExpectShape(t.all_q, 10, 8 * 32);
  EXPECT_EQ(t.q.data, t.all_q.Cols(2 * 32, 2 * 32).data);
}

TEST_F(WorkspaceTest, TokenSplitHasAllHeadsOfTheRanksTokens) {
  const auto workspace = NewWorkspace();
  workspace->SetRows(
      {.layout = Layout::kTokenSplit, .tokens = 64, .round = 256, .halo = 69});
  ExpectShape(workspace->residual, 64, 48);
  ExpectShape(workspace->gated, 64, 80);
  const AttentionTensors window = workspace->Attention(kWindowLayer);
  ExpectShape(window.q, 64, 8 * 16);
  ExpectShape(window.k, 64, 2 * 16);
  ExpectShape(window.keys, 69 + 64, 2 * 16);
  const AttentionTensors global = workspace->Attention(kGlobalLayer);
  ExpectShape(global.q, 64, 8 * 32);
  ExpectShape(global.k, 256, 32);
  ExpectShape(global.keys, 256, 2 * 4);
  ExpectShape(global.out, 64, 8 * 32);
}

TEST_F(WorkspaceTest, OnlyTheLeaderHasLogitsOnTheHost) {
  const auto workspace = NewWorkspace();
  workspace->SetRows({.layout = Layout::kHeadSplit, .tokens = 4, .logits = 3});
  EXPECT_EQ(workspace->logits.rows, 3);
  EXPECT_EQ(workspace->host_logits.rows, 0);
}

TEST_F(WorkspaceTest, NeedsMemoryForTheLargerLayout) {
  // Of what either layout needs, in values.
  constexpr int kHidden = 3 * 64 * 48;
  constexpr int kGateUp = 3 * 64 * 80;
  constexpr int kQueries = 64 * 8 * 32 + 64 * 8 * 32;
  constexpr int kRawKeys = 256 * 32;
  constexpr int kKeys = 133 * 2 * 16;
  constexpr int kValues = 256 * 32;
  constexpr int kAngles = 2 * (64 * 8 + 256 * 4);
  constexpr int kHead = 3 * 48 + 3 * 64;
  EXPECT_EQ(Workspace::MemoryBytes(config_, shape_, DType::kF32),
            4 * (kHidden + kGateUp + kQueries + kRawKeys + kKeys + kValues +
                 kAngles + kHead));
}

}  // namespace
}  // namespace lapidary
