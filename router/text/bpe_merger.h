// Byte-pair encoding of one piece: repeat the merge of lowest rank, leftmost on
// ties, until no two neighbours merge.

#ifndef ROUTER_TEXT_BPE_MERGER_H_
#define ROUTER_TEXT_BPE_MERGER_H_

#include <cstdint>
#include <vector>

#include "common/tokens.h"
#include "router/text/merge_table.h"

namespace lapidary {

// Keeps its scratch memory between calls.  Thread-compatible.  Must not outlive
// the table.
class BpeMerger {
 public:
  explicit BpeMerger(const MergeTable& merges) : merges_(merges) {}

  // Replaces `symbols` by what they merge to.  Takes O(n log n) time and,
  // beside the result, 20 bytes a symbol.
  //
  // REQUIRES: fewer than 2^31 symbols.
  void Merge(std::vector<TokenId>& symbols);

 private:
  void MergeShort(std::vector<TokenId>& symbols);
  void MergeLong(std::vector<TokenId>& symbols);
  void AddCandidate(const std::vector<TokenId>& symbols, int32_t left);

  const MergeTable& merges_;
  std::vector<MergeTable::Merge> pairs_;  // MergeShort: of symbols i and i + 1.

  // MergeLong: the symbols that are left form a doubly linked list by position,
  // and a heap holds what may be merged, as rank << 32 | position of the left.
  // An entry whose pair has changed since is skipped when it comes up.
  std::vector<int32_t> previous_;
  std::vector<int32_t> next_;
  std::vector<uint64_t> candidates_;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_BPE_MERGER_H_
