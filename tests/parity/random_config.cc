#include "tests/parity/random_config.h"

#include <cstddef>

namespace lapidary {
namespace {

// All but heads, window and KV heads.
SmallConfig ConfigWithoutHeads(Draw& draw) {
  SmallConfig config;
  config.hidden_size = draw.Of({48, 64, 80, 112});
  config.intermediate_size = draw.Of({16, 96, 144, 176});
  config.vocab_size = draw.Of({256, 272, 1008});
  config.head_dim = draw.Of({16, 32, 48, 80});
  config.global_head_dim = draw.Of({16, 32, 64, 96});
  config.k_eq_v = draw.Of({0, 1, 1}) == 1;
  config.rotating_part = draw.Of({25, 50, 100}) / 100.0;
  config.softcap = draw.Of({0, 5, 30});
  config.is_global.assign(draw.Of({1, 2, 3, 5}), false);
  for (size_t l = 0; l < config.is_global.size(); ++l) {
    config.is_global[l] = draw.OneIn(3);
  }
  config.is_global.back() = true;
  return config;
}

std::vector<int> DivisorsOf(int n) {
  std::vector<int> divisors;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  return divisors;
}

}  // namespace

SmallConfig RandomConfig(int seed) {
  Draw draw(seed);
  SmallConfig config = ConfigWithoutHeads(draw);
  config.num_heads = draw.Of({1, 2, 4, 6});
  config.num_kv_heads = draw.Of(DivisorsOf(config.num_heads));
  config.num_global_kv_heads = draw.Of(DivisorsOf(config.num_heads));
  config.window = draw.Of({1, 16, 65, 96, 100, 512});
  return config;
}

SmallConfig RandomGroupConfig(int seed, int num_ranks) {
  Draw draw(seed);
  SmallConfig config = ConfigWithoutHeads(draw);
  // A block of 16 columns and one of 16 rows a rank.
  config.intermediate_size = draw.Of({16 * num_ranks, 144, 176});
  if (config.is_global.size() == 1) config.is_global = {false, true};
  if (draw.OneIn(2)) {
    // Groups of query heads; in 3 ranks, 6 heads with 3 KV heads.
    config.num_heads = 2 * num_ranks;
    config.num_kv_heads = num_ranks;
  } else {
    config.num_heads = num_ranks;
    config.num_kv_heads = draw.Of(DivisorsOf(num_ranks));
  }
  config.num_global_kv_heads = draw.Of(DivisorsOf(config.num_heads));
  config.window = draw.Of({1, 2, 16, 63, 64, 65, 66, 100, 128, 200});
  return config;
}

std::vector<TokenId> RandomTokens(const SmallConfig& config, int count,
                                  int seed) {
  Draw draw(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = draw.Below(config.vocab_size);
  return tokens;
}

}  // namespace lapidary
