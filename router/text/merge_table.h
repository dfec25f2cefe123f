// Which two tokens merge into which, and how early.

#ifndef ROUTER_TEXT_MERGE_TABLE_H_
#define ROUTER_TEXT_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/tokens.h"

namespace lapidary {

// A hash table with linear probing, at most half full: nearly all look-ups are
// of pairs that do not merge, and those end at the first slot.
//
// Thread-compatible; 16 bytes a slot.
class MergeTable {
 public:
  static constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();

  struct Merge {
    int32_t rank = kNoMerge;  // The lowest rank merges first.
    TokenId token = 0;        // What the two become.
  };

  // For at most `num_merges` pairs.
  explicit MergeTable(size_t num_merges);

  // The last merge of a pair counts, as in the reference.
  void Add(TokenId left, TokenId right, Merge merge);

  // The merge of `left` and `right`; its rank is kNoMerge if there is none.
  Merge Find(TokenId left, TokenId right) const {
    const uint64_t pair = Pair(left, right);
    for (size_t i = Home(pair);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.pair == pair || slot.merge.rank == kNoMerge) return slot.merge;
    }
  }

 private:
  struct Slot {
    uint64_t pair = 0;
    Merge merge;
  };

  static uint64_t Pair(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 |
           static_cast<uint32_t>(right);
  }
  size_t Home(uint64_t pair) const {
    return (pair * 0x9E3779B97F4A7C15) >> shift_;
  }

  std::vector<Slot> slots_;
  size_t mask_;
  int shift_;  // 64 less the bits of a slot number.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_MERGE_TABLE_H_
