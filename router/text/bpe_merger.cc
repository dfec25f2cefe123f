#include "router/text/bpe_merger.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace lapidary {
namespace {

// Up to this many symbols a scan for the minimum beats a heap.
constexpr size_t kShortSymbols = 48;

constexpr int32_t kNone = -1;  // End of the list.
constexpr TokenId kGone = -1;  // A symbol that was merged into its left one.

}  // namespace

void BpeMerger::Merge(std::vector<TokenId>& symbols) {
  if (symbols.size() <= kShortSymbols) {
    MergeShort(symbols);
  } else {
    MergeLong(symbols);
  }
}

void BpeMerger::MergeShort(std::vector<TokenId>& symbols) {
  const auto find = [&](size_t left) {
    return merges_.Find(symbols[left], symbols[left + 1]);
  };
  pairs_.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs_.push_back(find(i));
  while (!pairs_.empty()) {
    const auto best = std::min_element(
        pairs_.begin(), pairs_.end(),
        [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->rank == MergeTable::kNoMerge) return;
    const size_t left = best - pairs_.begin();
    symbols[left] = best->token;
    symbols.erase(symbols.begin() + left + 1);
    pairs_.erase(best);
    if (left > 0) pairs_[left - 1] = find(left - 1);
    if (left < pairs_.size()) pairs_[left] = find(left);
  }
}

void BpeMerger::AddCandidate(const std::vector<TokenId>& symbols,
                             int32_t left) {
  const int32_t rank = merges_.Find(symbols[left], symbols[next_[left]]).rank;
  if (rank != MergeTable::kNoMerge) {
    candidates_.push_back(uint64_t{static_cast<uint32_t>(rank)} << 32 |
                          static_cast<uint32_t>(left));
  }
}

void BpeMerger::MergeLong(std::vector<TokenId>& symbols) {
  const int32_t count = static_cast<int32_t>(symbols.size());
  previous_.resize(count);
  next_.resize(count);
  std::iota(previous_.begin(), previous_.end(), -1);
  std::iota(next_.begin(), next_.end(), 1);
  next_.back() = kNone;
  candidates_.clear();
  for (int32_t i = 0; i + 1 < count; ++i) AddCandidate(symbols, i);
  std::make_heap(candidates_.begin(), candidates_.end(), std::greater<>());

  const auto push = [&](int32_t left) {
    const size_t before = candidates_.size();
    AddCandidate(symbols, left);
    if (candidates_.size() > before) {
      std::push_heap(candidates_.begin(), candidates_.end(), std::greater<>());
    }
  };
  while (!candidates_.empty()) {
    std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>());
    const int32_t rank = static_cast<int32_t>(candidates_.back() >> 32);
    const int32_t left = static_cast<int32_t>(candidates_.back());
    candidates_.pop_back();
    const int32_t right = next_[left];
    if (symbols[left] == kGone || right == kNone) continue;
    const MergeTable::Merge merge = merges_.Find(symbols[left], symbols[right]);
    if (merge.rank != rank) continue;
    symbols[left] = merge.token;
    symbols[right] = kGone;
    next_[left] = next_[right];
    if (next_[left] != kNone) {
      previous_[next_[left]] = left;
      push(left);
    }
    if (previous_[left] != kNone) push(previous_[left]);
  }
  std::erase(symbols, kGone);
}

}  // namespace lapidary
