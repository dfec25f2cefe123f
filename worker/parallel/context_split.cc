#include "worker/parallel/context_split.h"

#include <algorithm>

#include "common/tokens.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

// The first page border after `position`.
int NextBorder(int position) {
  return (position / kPageTokens + 1) * kPageTokens;
}

// The largest page border at or before `position`.
int BorderBefore(int position) { return position / kPageTokens * kPageTokens; }

// Where a range from `begin` ends that costs about `target`, at a page border
// or at `end`.
int EndAtCost(int begin, int end, double target, const TokenCost& cost) {
  int range_end = begin;
  while (range_end < end) {
    const int next = std::min(end, NextBorder(range_end));
    const double with = cost.Of({begin, next});
    if (with > target && range_end > begin) {
      // The nearer of the two borders.
      const double without = cost.Of({begin, range_end});
      return with - target < target - without ? next : range_end;
    }
    range_end = next;
    if (with >= target) break;
  }
  return range_end;
}

// What a global layer stores of a position.
int64_t StoredBytes(const GlobalShape& shape) {
  return int64_t{shape.kv_heads} * (shape.head_dim + 2 * shape.key_half) *
         shape.activation_bytes;
}

// What a position's key and value take in one head of a window layer.
int64_t HeadBytes(const WindowShape& shape) {
  return int64_t{2} * shape.head_dim * shape.activation_bytes;
}

}  // namespace

PositionRange Intersect(PositionRange a, PositionRange b) {
  const int begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

double TokenCost::Of(PositionRange range) const {
  const double size = range.size();
  return size * (fixed + per_position * (range.begin + (size - 1) / 2));
}

std::vector<int> SplitRound(PositionRange round, int num_ranks,
                            const TokenCost& cost, int max_range_tokens) {
  CHECK_GT(num_ranks, 0);
  CHECK_EQ(max_range_tokens % kPageTokens, 0);
  std::vector<int> ends;
  int begin = round.begin;
  for (int ranks_left = num_ranks; ranks_left > 0; --ranks_left) {
    const double target = cost.Of({begin, round.end}) / ranks_left;
    int end = EndAtCost(begin, round.end, target, cost);
    // Long enough that the others can cover the rest, short enough for memory.
    const int64_t others = int64_t{ranks_left - 1} * max_range_tokens;
    const auto shortest =
        static_cast<int>(std::max<int64_t>(begin, round.end - others));
    if (end < shortest) {
      end = std::min(round.end, BorderBefore(shortest + kPageTokens - 1));
    }
    const int64_t longest = int64_t{begin} + max_range_tokens;
    if (end > longest) end = BorderBefore(static_cast<int>(longest));
    ends.push_back(end);
    begin = end;
  }
  CHECK_EQ(begin, round.end)
      << "ranges of " << max_range_tokens
      << " tokens do not cover the round from " << round.begin;
  return ends;
}

double Balance(int start, std::span<const int> range_ends,
               const TokenCost& cost) {
  double most = 0;
  int begin = start;
  for (const int end : range_ends) {
    most = std::max(most, cost.Of({begin, end}));
    begin = end;
  }
  const double all = cost.Of({start, begin});
  return all > 0 ? most * static_cast<double>(range_ends.size()) / all : 1;
}

RoundSplit::RoundSplit(int start, std::span<const int> range_ends, int window)
    : window_(window), round_{start, start} {
  for (const int end : range_ends) {
    CHECK_GE(end, round_.end);
    ranges_.push_back({round_.end, end});
    round_.end = end;
  }
}

PositionRange RoundSplit::halo(int rank) const {
  const PositionRange& range = ranges_[rank];
  if (range.empty()) return {range.begin, range.begin};
  return {std::max(0, range.begin - (window_ - 1)), range.begin};
}

PositionRange RoundSplit::tail() const {
  return {std::max(round_.begin, round_.end - (window_ - 1)), round_.end};
}

int RoundSplit::RankOf(int position) const {
  CHECK(position >= round_.begin && position < round_.end);
  const auto holder =
      std::find_if(ranges_.begin(), ranges_.end(),
                   [&](const PositionRange& r) { return position < r.end; });
  return static_cast<int>(holder - ranges_.begin());
}

KvHeadShare ShareOfKvHeads(int kv_heads, int rank, int num_ranks) {
  if (kv_heads >= num_ranks) {
    CHECK_EQ(kv_heads % num_ranks, 0);
    const int count = kv_heads / num_ranks;
    return {.first = rank * count, .count = count, .primary = true};
  }
  CHECK_EQ(num_ranks % kv_heads, 0);
  const int sharers = num_ranks / kv_heads;
  return {.first = rank / sharers, .count = 1, .primary = rank % sharers == 0};
}

Travel ChooseTravel(int64_t context, int64_t num_tokens,
                    const GlobalShape& shape) {
  const int64_t keys = context * StoredBytes(shape);
  const int64_t queries =
      num_tokens * shape.num_heads *
      (int64_t{shape.head_dim} * (shape.activation_bytes + 4) + 4);
  return keys < queries ? Travel::kKeys : Travel::kQueries;
}

int64_t AllReduceBytes(int64_t num_tokens, int hidden_size,
                       int activation_bytes, int num_ranks) {
  return 2 * num_tokens * hidden_size * activation_bytes * (num_ranks - 1) /
         num_ranks;
}

int64_t QueriesTravelBytes(int64_t num_tokens, const GlobalShape& shape,
                           int num_ranks) {
  return num_tokens * shape.num_heads *
         (int64_t{shape.head_dim} * (shape.activation_bytes + 4) + 4) *
         (num_ranks - 1) / num_ranks;
}

int64_t KeysTravelBytes(int64_t context, const GlobalShape& shape,
                        int num_ranks) {
  return context * StoredBytes(shape) * (num_ranks - 1) / num_ranks;
}

int64_t PagesBytes(int first_page, int end_page, int rank, int num_ranks,
                   const GlobalShape& shape) {
  // Of pages [0, end).
  const auto owned = [&](int end) {
    return (end + num_ranks - 1 - rank) / num_ranks;
  };
  if (end_page <= first_page) return 0;
  const int64_t others =
      end_page - first_page - (owned(end_page) - owned(first_page));
  return others * kPageTokens * StoredBytes(shape);
}

int64_t RoundKeysBytes(const RoundSplit& split, int rank,
                       const GlobalShape& shape) {
  const int64_t projected = int64_t{shape.kv_heads} * shape.head_dim *
                            (shape.k_eq_v ? 1 : 2) * shape.activation_bytes;
  return (split.round().size() - split.range(rank).size()) * projected;
}

int64_t HaloBytes(const RoundSplit& split, int rank, const WindowShape& shape) {
  const int64_t halo = split.halo(rank).size();
  const int64_t in_round = Intersect(split.halo(rank), split.round()).size();
  const int held =
      ShareOfKvHeads(shape.kv_heads, rank, split.num_ranks()).count;
  return (in_round * shape.kv_heads +
          (halo - in_round) * (shape.kv_heads - held)) *
         HeadBytes(shape);
}

int64_t TailBytes(const RoundSplit& split, int rank, const WindowShape& shape) {
  const int64_t others =
      split.tail().size() - Intersect(split.tail(), split.range(rank)).size();
  const int held =
      ShareOfKvHeads(shape.kv_heads, rank, split.num_ranks()).count;
  return others * held * HeadBytes(shape);
}

int64_t FinalStatesBytes(const RoundSplit& split, int rank, int num_rows,
                         int hidden_size, int activation_bytes) {
  const PositionRange rows = {split.round().end - num_rows, split.round().end};
  const int64_t others = num_rows - Intersect(rows, split.range(rank)).size();
  return others * hidden_size * activation_bytes;
}

int64_t LogitsBytes(int64_t num_rows, int vocab_size, int num_ranks) {
  constexpr int kLogitBytes = 4;  // fp32
  return num_rows * vocab_size * kLogitBytes * (num_ranks - 1) / num_ranks;
}

}  // namespace lapidary
