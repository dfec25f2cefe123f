#include "worker/model/kv_store.h"

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace lapidary {
namespace {

// The 12B's layers: 5 window layers and a global one that stores latents.
GemmaConfig SixLayersOf12B() {
  GemmaConfig config;
  for (int l = 0; l < 5; ++l) {
    config.layers.push_back({.type = LayerType::kWindow,
                             .head_dim = 256,
                             .num_kv_heads = 8,
                             .k_eq_v = false,
                             .key_half = 128});
  }
  config.layers.push_back({.type = LayerType::kGlobal,
                           .head_dim = 512,
                           .num_kv_heads = 1,
                           .k_eq_v = true,
                           .key_half = 64});
  return config;
}

TEST(KvPageBytesTest, CountsLatentsAndWholeKeys) {
  const PageBytes bytes =
      KvPageBytes(SixLayersOf12B(), DType::kBf16, /*num_ranks=*/1);
  EXPECT_EQ(bytes.global, 64 * 640 * 2);
  EXPECT_EQ(bytes.window, 5 * 64 * 8 * (256 + 256) * 2);
}

TEST(KvPageBytesTest, TakesTwiceAsMuchInFp32) {
  const PageBytes bytes =
      KvPageBytes(SixLayersOf12B(), DType::kF32, /*num_ranks=*/1);
  EXPECT_EQ(bytes.global, 64 * 640 * 4);
}

TEST(KvPageBytesTest, SplitsWindowPagesByHeadsAlone) {
  const PageBytes bytes =
      KvPageBytes(SixLayersOf12B(), DType::kBf16, /*num_ranks=*/4);
  EXPECT_EQ(bytes.global, 64 * 640 * 2);
  EXPECT_EQ(bytes.window, 5 * 64 * 2 * (256 + 256) * 2);
}

TEST(KvPageBytesTest, RepeatsAHeadWhereRanksAreMore) {
  const PageBytes bytes =
      KvPageBytes(SixLayersOf12B(), DType::kBf16, /*num_ranks=*/16);
  EXPECT_EQ(bytes.window, 5 * 64 * 1 * (256 + 256) * 2);
}

TEST(KvStoreTest, GivesEachLayerPlanesOfItsFamily) {
  const auto backend = NewCpuBackend({.threads = 1});
  ASSERT_OK(backend);
  const auto store =
      KvStore::Create(SixLayersOf12B(), DType::kBf16, /*num_ranks=*/1,
                      {.global = 3, .window = 2, .replica = 1}, **backend);
  ASSERT_OK(store);
  const KvPlanes& window = (*store)->planes(0);
  EXPECT_EQ(window.kv_heads, 8);
  EXPECT_EQ(window.key_half, 128);
  const KvPlanes& global = (*store)->planes(5);
  EXPECT_EQ(global.head_dim, 512);
  EXPECT_NE(global.keys, nullptr);
  EXPECT_NE(global.values, window.values);
  EXPECT_NE((*store)->replica(5).values, nullptr);
  EXPECT_NE((*store)->replica(5).values, global.values);
  EXPECT_EQ((*store)->replica(0).values, nullptr);
}

TEST(KvStoreTest, SaysSoWhenMemoryIsShort) {
  const auto backend = NewCpuBackend({.threads = 1});
  ASSERT_OK(backend);
  EXPECT_THAT(
      KvStore::Create(SixLayersOf12B(), DType::kBf16, /*num_ranks=*/1,
                      {.global = 2'000'000'000, .window = 2}, **backend),
      StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace lapidary
