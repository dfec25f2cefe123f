// Configs that no stored reference covers, by seed: other head counts, dims,
// windows, layer patterns and vocabularies.

#ifndef TESTS_PARITY_RANDOM_CONFIG_H_
#define TESTS_PARITY_RANDOM_CONFIG_H_

#include <random>
#include <vector>

#include "common/tokens.h"
#include "tests/parity/reference_model.h"

namespace lapidary {

// What tests draw by a seed.  The same on every machine.
class Draw {
 public:
  explicit Draw(int seed) : random_(seed) {}

  // In [0, n).
  int Below(int n) { return static_cast<int>(random_() % n); }
  // In [first, last].
  int Between(int first, int last) { return first + Below(last - first + 1); }
  bool OneIn(int n) { return Below(n) == 0; }
  int Of(const std::vector<int>& values) {
    return values[random_() % values.size()];
  }

 private:
  std::mt19937 random_;
};

// For one rank.
SmallConfig RandomConfig(int seed);

// For a group of `num_ranks`, 1 to 8 without 5 and 7: query heads that it
// divides, and window KV heads that it divides or that divide it.
SmallConfig RandomGroupConfig(int seed, int num_ranks);

std::vector<TokenId> RandomTokens(const SmallConfig& config, int count,
                                  int seed);

}  // namespace lapidary

#endif  // TESTS_PARITY_RANDOM_CONFIG_H_
