// How a round of a long prompt is split over the ranks, and which positions
// they have to exchange for it.
//
//   round     [start ─────────────────────────────────────────── end)
//   ranges    [   rank 0   |  rank 1  |  rank 2  | rank 3 )
//   halo             of rank 2: [W-1 positions)
//   tail                                        [W-1 positions)
//
// A token late in the round attends to more keys than an early one, so the
// ranges are of equal cost, not of equal length.  One range a rank of unequal
// length rather than two of equal length (zig-zag): it balances as well, to
// within a page, and has half the borders, each of which costs a halo.
//
// Pure: arithmetic on positions.

#ifndef WORKER_PARALLEL_CONTEXT_SPLIT_H_
#define WORKER_PARALLEL_CONTEXT_SPLIT_H_

#include <cstdint>
#include <span>
#include <vector>

namespace lapidary {

// Positions [begin, end).
struct PositionRange {
  int begin = 0;
  int end = 0;

  int size() const { return end - begin; }
  bool empty() const { return end <= begin; }

  bool operator==(const PositionRange&) const = default;
};

// Empty if they have nothing in common.
PositionRange Intersect(PositionRange a, PositionRange b);

// What a token at position p costs: fixed + per_position * p, in any unit.
struct TokenCost {
  double fixed = 1;
  double per_position = 0;

  // Of all tokens of `range`.
  double Of(PositionRange range) const;
};

// The ends of the ranks' ranges of `round`, one a rank: at page borders, but
// for that of the last range that is not empty; of equal cost as far as pages
// allow; none longer than `max_range_tokens`.
//
// REQUIRES: max_range_tokens is a multiple of kPageTokens, and num_ranks ranges
// of it cover the round, which may begin inside a page.
std::vector<int> SplitRound(PositionRange round, int num_ranks,
                            const TokenCost& cost, int max_range_tokens);

// Cost of the most expensive range / mean cost; 1 is perfect.
double Balance(int start, std::span<const int> range_ends,
               const TokenCost& cost);

// The geometry of a round.
class RoundSplit {
 public:
  // `window` is W.  `range_ends` as in StepPlan.
  RoundSplit(int start, std::span<const int> range_ends, int window);

  int num_ranks() const { return static_cast<int>(ranges_.size()); }
  PositionRange round() const { return round_; }
  PositionRange range(int rank) const { return ranges_[rank]; }

  // The positions before a rank's range whose window keys its queries see, in
  // the round or before it.
  PositionRange halo(int rank) const;

  // The positions of the round whose window keys later steps see.
  PositionRange tail() const;

  // The rank that computes `position` of the round.
  int RankOf(int position) const;

 private:
  const int window_;
  PositionRange round_;
  std::vector<PositionRange> ranges_;
};

// Which KV heads of a window layer a rank holds: K / N of them, or where there
// are fewer heads than ranks one that N / K ranks hold alike.
struct KvHeadShare {
  int first = 0;
  int count = 0;
  bool primary = true;  // Of the ranks that hold the same, the first.
};

// REQUIRES: one of kv_heads and num_ranks divides the other.
KvHeadShare ShareOfKvHeads(int kv_heads, int rank, int num_ranks);

// What travels between ranks so that a global layer's queries meet the keys of
// the positions before them.
enum class Travel { kQueries, kKeys };

// Of a global layer.
struct GlobalShape {
  int num_heads = 0;         // H
  int kv_heads = 0;          // K
  int head_dim = 0;          // d
  int key_half = 0;          // A; d/2 where whole keys are stored.
  int activation_bytes = 0;  // e
  // Values are the raw keys, normed another way: they need not travel.
  bool k_eq_v = true;
};

// Of a window layer, whose keys are stored whole.
struct WindowShape {
  int kv_heads = 0;          // K
  int head_dim = 0;          // d
  int activation_bytes = 0;  // e
};

// The rule of the architecture (5.2), for one sequence's `num_tokens` queries
// (T) behind `context` earlier positions (P): keys travel iff
//
//   P K (d + 2A) e  <  T H (d e + 4 d + 4)
//
// Both sides are one request's own, so that companions in a batch cannot change
// how its result is computed.
Travel ChooseTravel(int64_t context, int64_t num_tokens,
                    const GlobalShape& shape);

// Bytes that each of N ranks receives, per layer (the formulas of 5.2).  What
// ranks really receive is held to these in tests/parity/group_bytes_test.cc.
//
// Two sums over the ranks of a layer's output, T h values of e bytes.
int64_t AllReduceBytes(int64_t num_tokens, int hidden_size,
                       int activation_bytes, int num_ranks);
// Queries out, partial results and their log-sum-exp back.
int64_t QueriesTravelBytes(int64_t num_tokens, const GlobalShape& shape,
                           int num_ranks);
// The stored form of `context` earlier positions, a multiple of N pages.
int64_t KeysTravelBytes(int64_t context, const GlobalShape& shape,
                        int num_ranks);

// Bytes that `rank` receives, per layer, where ranks differ.
//
// Logical pages [first_page, end_page) in their stored form, those apart that
// it owns: keys that travel, or what a replica lacks.
int64_t PagesBytes(int first_page, int end_page, int rank, int num_ranks,
                   const GlobalShape& shape);
// Raw keys of the round's other ranges: T K d e (N-1) / N with equal ranges.
int64_t RoundKeysBytes(const RoundSplit& split, int rank,
                       const GlobalShape& shape);
// Keys and values of the halo: all heads of positions in the round, the heads
// that other ranks hold of positions before it.
int64_t HaloBytes(const RoundSplit& split, int rank, const WindowShape& shape);
// Keys and values of the tail, of the heads that the rank holds.
int64_t TailBytes(const RoundSplit& split, int rank, const WindowShape& shape);

// Final states of the round's last `num_rows` positions, of h values, from the
// ranks in whose ranges they are.
int64_t FinalStatesBytes(const RoundSplit& split, int rank, int num_rows,
                         int hidden_size, int activation_bytes);

// Bytes of logits that the leader receives.
//
// REQUIRES: N divides the vocabulary's blocks of 16.
int64_t LogitsBytes(int64_t num_rows, int vocab_size, int num_ranks);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_CONTEXT_SPLIT_H_
