// How the forward pass deals with its step and its group.  What it computes is
// held against references in tests/parity.

#include "worker/model/gemma.h"

#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Says it is the first of `size` ranks, and counts what the model asks for.
class CountingCollective : public Collective {
 public:
  explicit CountingCollective(int size) : size_(size) {}

  int rank() const override { return 0; }
  int size() const override { return size_; }
  void SetDeadline(Deadline) override {}
  absl::Status AllReduceSum(Traffic, Tensor) override {
    ++sums;
    return sum_status;
  }
  absl::Status ReduceScatterSum(Traffic, Tensor, Tensor) override {
    return absl::OkStatus();
  }
  absl::StatusOr<ExchangeId> Start(CollectiveKind, Traffic,
                                   std::span<const RankPart>,
                                   std::span<const RankPart>) override {
    return 0;
  }
  absl::Status Wait(ExchangeId) override { return absl::OkStatus(); }
  const TransferCounters& counters() const override { return counters_; }
  int64_t memory_bytes() const override { return 0; }

  int sums = 0;
  absl::Status sum_status;

 private:
  const int size_;
  TransferCounters counters_;
};

class GemmaTest : public ::testing::Test {
 protected:
  GemmaTest() {
    config_.vocab_size = 64;
    config_.hidden_size = 32;
    config_.intermediate_size = 64;
    config_.num_heads = 2;
    config_.window = 70;
    config_.rms_norm_epsilon = 1e-6f;
    config_.embed_scale = 5.65625f;
    config_.logit_softcap = 30;
    config_.window_rope.inverse_frequencies.assign(8, 0.1f);
    config_.global_rope.inverse_frequencies.assign(4, 0.1f);
    config_.layers.push_back({.type = LayerType::kWindow,
                              .head_dim = 16,
                              .num_kv_heads = 2,
                              .k_eq_v = false,
                              .key_half = 8});
    config_.layers.push_back({.type = LayerType::kGlobal,
                              .head_dim = 32,
                              .num_kv_heads = 1,
                              .k_eq_v = true,
                              .key_half = 4});
    for (const LayerConfig& layer : config_.layers) AddLayer(layer);
    weights_.embedding = weights_.head = Matrix(64, 32);
    weights_.final_norm = Vector(32);
    store_ = KvStore::Create(config_, DType::kF32, 1,
                             {.global = 8, .window = 8}, *backend_)
                 .value();
  }

  ~GemmaTest() override {
    for (Bf16* values : allocations_) backend_->Free(values);
  }

  void AddLayer(const LayerConfig& layer) {
    const int q_cols = config_.num_heads * layer.head_dim;
    const int kv_cols = layer.num_kv_heads * layer.head_dim;
    LayerWeights w;
    w.input_norm = w.post_attention_norm = Vector(32);
    w.pre_feedforward_norm = w.post_feedforward_norm = Vector(32);
    w.q_norm = w.k_norm = Vector(layer.head_dim);
    w.q = Matrix(q_cols, 32);
    w.k = Matrix(kv_cols, 32);
    if (!layer.k_eq_v) w.v = Matrix(kv_cols, 32);
    w.o = Matrix(32, q_cols);
    w.gate = Matrix(64, 32);
    w.up = Matrix(64, 32);
    w.down = Matrix(32, 64);
    weights_.layers.push_back(w);
  }

  const Bf16* Vector(int size) {
    Bf16* values = NewValues(size);
    for (int i = 0; i < size; ++i) values[i] = ToBf16(0.5f + i % 3);
    return values;
  }

  PackedMatrix Matrix(int rows, int cols) {
    Bf16* values = NewValues(rows * cols);
    for (int i = 0; i < rows * cols; ++i) {
      values[i] =
          ToBf16(static_cast<float>(++state_ * 7919 % 101) / 101 - 0.5f);
    }
    return {values, rows, cols, int64_t{cols} * 16};
  }

  Bf16* NewValues(int size) {
    allocations_.push_back(
        static_cast<Bf16*>(backend_->Allocate(2 * size).value()));
    return allocations_.back();
  }

  absl::StatusOr<std::unique_ptr<Gemma>> NewGemma(Collective& collective) {
    return Gemma::Create(
        config_, weights_, *store_, *backend_, collective,
        {.compute = DType::kF32, .max_step_tokens = 16, .max_logit_rows = 4});
  }

  // Tokens 1, 2, … of one sequence from position 0, in its first pages.
  static StepPlan Prefill(int num_tokens, std::vector<int> logit_rows) {
    StepPlan plan;
    plan.sequences.push_back({.sequence = 1,
                              .start = 0,
                              .num_tokens = num_tokens,
                              .first_token = 0,
                              .first_global_page = 0,
                              .num_global_pages = 1,
                              .window_base = 0,
                              .first_window_page = 0,
                              .num_window_pages = 1});
    for (int i = 1; i <= num_tokens; ++i) plan.tokens.push_back(i);
    plan.global_pages = {0};
    plan.window_pages = {0};
    plan.logit_rows = std::move(logit_rows);
    return plan;
  }

  static std::vector<float> Row(const Tensor& logits, int r) {
    const auto* row = static_cast<const float*>(logits.row(r));
    return {row, row + logits.cols};
  }

  const std::unique_ptr<Backend> backend_ =
      NewCpuBackend({.threads = 1}).value();
  GemmaConfig config_;
  GemmaWeights weights_;
  std::unique_ptr<KvStore> store_;
  CountingCollective alone_{1};
  std::vector<Bf16*> allocations_;
  int state_ = 0;
};

TEST_F(GemmaTest, ReturnsTheLogitsOfTheRowsAskedFor) {
  const auto gemma = NewGemma(alone_);
  ASSERT_OK(gemma);
  const Tensor all = (*gemma)->Forward(Prefill(4, {0, 1, 2, 3})).value();
  EXPECT_EQ(all.rows, 4);
  EXPECT_EQ(all.cols, 64);
  const std::vector<float> first = Row(all, 0), last = Row(all, 3);
  EXPECT_NE(first, last);
  const Tensor two = (*gemma)->Forward(Prefill(4, {0, 3})).value();
  ASSERT_EQ(two.rows, 2);
  EXPECT_EQ(Row(two, 0), first);
  EXPECT_EQ(Row(two, 1), last);
}

// The reference looks an image token up as padding where no image replaces it;
// a greedy text after 262,136 tokens goes another way where it does not.
TEST_F(GemmaTest, LooksSoftTokensUpAsPad) {
  config_.soft_token_ids = {3};
  config_.pad_token_id = 9;
  const auto gemma = NewGemma(alone_);
  StepPlan plan = Prefill(4, {2});
  const std::vector<float> soft = Row((*gemma)->Forward(plan).value(), 0);
  plan.tokens[2] = 9;
  EXPECT_EQ(Row((*gemma)->Forward(plan).value(), 0), soft);
  plan.tokens[2] = 4;
  EXPECT_NE(Row((*gemma)->Forward(plan).value(), 0), soft);
}

TEST_F(GemmaTest, AStepMayWantNoLogits) {
  const auto gemma = NewGemma(alone_);
  ASSERT_OK(gemma);
  EXPECT_EQ((*gemma)->Forward(Prefill(4, {})).value().rows, 0);
}

TEST_F(GemmaTest, SumsTwiceALayer) {
  const auto gemma = NewGemma(alone_);
  ASSERT_OK(gemma);
  ASSERT_OK((*gemma)->Forward(Prefill(4, {3})));
  EXPECT_EQ(alone_.sums, 4);
}

TEST_F(GemmaTest, ShowsTheResidualStreamToAnObserver) {
  const auto gemma = NewGemma(alone_);
  ASSERT_OK(gemma);
  std::vector<int> layers;
  ASSERT_OK((*gemma)->Forward(Prefill(4, {3}), [&](int layer, Tensor hidden) {
    layers.push_back(layer);
    EXPECT_EQ(hidden.rows, 4);
    EXPECT_EQ(hidden.cols, 32);
  }));
  EXPECT_THAT(layers, ElementsAre(0, 1, 2, 3));
}

TEST_F(GemmaTest, PassesOnThatARankIsGone) {
  const auto gemma = NewGemma(alone_);
  ASSERT_OK(gemma);
  alone_.sum_status = absl::UnavailableError("a rank is gone");
  EXPECT_THAT((*gemma)->Forward(Prefill(4, {3})),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(GemmaTest, RefusesGroupsThatDoNotDivideTheHeads) {
  CountingCollective three(3);
  EXPECT_THAT(NewGemma(three), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("heads: 1, 2; got 3")));
}

}  // namespace
}  // namespace lapidary
