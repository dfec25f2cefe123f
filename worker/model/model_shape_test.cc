#include "worker/model/model_shape.h"

#include "gtest/gtest.h"
#include "worker/model/gemma_config.h"
#include "worker/schedule/cost_model.h"

namespace lapidary {
namespace {

TEST(ModelShapeTest, CountsLayersByType) {
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
  config.layers = {window, window, global};

  const ModelShape shape = ShapeOfModel(config);
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

}  // namespace
}  // namespace lapidary
