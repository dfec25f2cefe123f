#include "worker/model/model_shape.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {
namespace {

// Two window layers and a global one.
GemmaConfig SmallConfig() {
  const LayerConfig window = {.type = LayerType::kWindow,
                              .head_dim = 256,
                              .num_kv_heads = 8,
                              .k_eq_v = false,
                              .key_half = 128};
  const LayerConfig global = {.type = LayerType::kGlobal,
                              .head_dim = 512,
                              .num_kv_heads = 1,
                              .k_eq_v = true,
                              .key_half = 64};
  GemmaConfig config;
  config.vocab_size = 1000;
  config.hidden_size = 384;
  config.intermediate_size = 1536;
  config.num_heads = 16;
  config.window = 1024;
  config.max_context_tokens = 1000;
  config.layers = {window, window, global};
  return config;
}

TEST(ModelShapeTest, CountsLayersByType) {
  const ModelShape shape = ShapeOfModel(SmallConfig());
  EXPECT_EQ(shape.vocab_size, 1000);
  EXPECT_EQ(shape.hidden_size, 384);
  EXPECT_EQ(shape.intermediate_size, 1536);
  EXPECT_EQ(shape.num_heads, 16);
  EXPECT_EQ(shape.window, 1024);
  EXPECT_EQ(shape.num_layers(), 3);
  EXPECT_EQ(shape.window_layers.count, 2);
  EXPECT_EQ(shape.window_layers.stored(), 8 * (256 + 256));
  EXPECT_TRUE(shape.window_layers.has_v);
  EXPECT_EQ(shape.global_layers.count, 1);
  EXPECT_EQ(shape.global_layers.stored(), 512 + 128);
  EXPECT_FALSE(shape.global_layers.has_v);
}

TEST(ModelShapeTest, SaysHowManyPagesABufferHolds) {
  constexpr int64_t kPage = 64 * (512 + 128) * 2;  // In bf16.
  const auto pages = [](int64_t memory, DType compute) {
    return GatherPages(SmallConfig(), memory, compute);
  };
  EXPECT_EQ(pages(3 * kPage, DType::kBf16), 3);
  EXPECT_EQ(pages(4 * kPage - 1, DType::kBf16), 3);
  EXPECT_EQ(pages(4 * kPage, DType::kF32), 2);
  EXPECT_EQ(pages(1, DType::kBf16), 1);
  EXPECT_EQ(pages(int64_t{1} << 50, DType::kBf16), 16);  // 1,000 tokens.
}

}  // namespace
}  // namespace lapidary
