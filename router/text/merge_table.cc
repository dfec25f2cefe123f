#include "router/text/merge_table.h"

#include <algorithm>
#include <bit>

namespace lapidary {

MergeTable::MergeTable(size_t num_merges)
    : slots_(std::bit_ceil(std::max<size_t>(2 * num_merges, 2))),
      mask_(slots_.size() - 1),
      shift_(64 - std::countr_zero(slots_.size())) {}

void MergeTable::Add(TokenId left, TokenId right, Merge merge) {
  const uint64_t pair = Pair(left, right);
  size_t i = Home(pair);
  while (slots_[i].merge.rank != kNoMerge && slots_[i].pair != pair) {
    i = (i + 1) & mask_;
  }
  slots_[i] = {.pair = pair, .merge = merge};
}

}  // namespace lapidary
