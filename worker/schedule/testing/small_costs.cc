#include "worker/schedule/testing/small_costs.h"

#include "absl/time/time.h"

namespace lapidary {

CostModel SmallCosts(int num_ranks, int window) {
  const ModelShape shape = {.hidden_size = 64,
                            .intermediate_size = 128,
                            .num_heads = 8,
                            .vocab_size = 1000,
                            .window = window,
                            .window_layers = {.count = 1,
                                              .kv_heads = 8,
                                              .head_dim = 8,
                                              .key_half = 4,
                                              .has_v = true},
                            .global_layers = {.count = 1,
                                              .kv_heads = 1,
                                              .head_dim = 16,
                                              .key_half = 4,
                                              .has_v = false}};
  constexpr double kWeights = 82944;  // Of the layers of that shape.
  constexpr double kPairFlops = 4 * 8 * 16;
  return CostModel(
      shape,
      {.matmul_flops = 2 * kWeights / 1e-3,
       .attention_flops = kPairFlops / 1e-6,
       .read_bytes = 2 * kWeights / 4e-3,
       .link_bytes = 3e6,
       .link_latency = absl::Microseconds(10)},
      {.num_ranks = num_ranks, .activation_bytes = 4, .gather_pages = 1024});
}

}  // namespace lapidary
