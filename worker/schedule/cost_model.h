// How long a step takes, and how to split a prefill: arithmetic on the shapes
// of a model and on rates that were measured.
//
// N ranks, T tokens, w weights of all layers, e bytes of an activation:
//
//                head split                          token split
//   matrices     max(2 T w / N / matmul rate,        of the longest range, n
//                    weight bytes / N / read rate)   tokens: the same, N = 1
//   attention    max(4 H d pairs / N / attention     of the range with most
//                    rate, key bytes / N / read rate)  pairs: the same, N = 1
//   link         2 all-reduces a layer, queries or   halo, the round's keys,
//                keys of the global layers           the tail, earlier keys
//
// where pairs are (query, key) pairs under the mask. Under token split ranks
// wait for each other's keys in every layer, so that each kind of work takes as
// long as for the rank that has most of it. An exchange takes its bytes / link
// rate and a latency. Nothing is taken to overlap, so a planned time is an
// upper bound where transfers run beside computation. Bytes are those of the
// rank that receives most (context_split.h has the formulas).
//
// Pure.

#ifndef WORKER_SCHEDULE_COST_MODEL_H_
#define WORKER_SCHEDULE_COST_MODEL_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "worker/parallel/context_split.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// What costs depend on.  Layers of a kind are alike.
struct ModelShape {
  struct Layers {
    int count = 0;
    int kv_heads = 0;   // K
    int head_dim = 0;   // d
    int key_half = 0;   // Pairs of channels in the key plane (kv_store.h).
    bool has_v = true;  // A projection of its own for values.

    // Values stored for a token: d + 2 key_half a head.
    int64_t stored() const {
      return int64_t{kv_heads} * (head_dim + 2 * key_half);
    }
  };

  int hidden_size = 0;        // h
  int intermediate_size = 0;  // F
  int num_heads = 0;          // H
  int vocab_size = 0;
  int window = 0;  // W
  Layers window_layers;
  Layers global_layers;

  int num_layers() const { return window_layers.count + global_layers.count; }
};

// Of one rank, all > 0.  Link: what it receives from the others together, and
// what an exchange takes however small it is.
struct RankRates {
  double matmul_flops = 0;     // A second, of matrices with many rows.
  double attention_flops = 0;  // A second, of global layers.
  double read_bytes = 0;       // A second, of weights, with one row.
  double link_bytes = 0;       // A second.
  absl::Duration link_latency;
};

// How the ranks run the model.
struct GroupShape {
  int num_ranks = 1;
  int activation_bytes = 2;
  int gather_pages = 1;  // That an exchange of global pages brings, at most.
};

// What ranks exchange in a step, by purpose.
enum class Transfer : uint8_t {
  kAllReduce,    // Sums of the layers' outputs.
  kQueries,      // Of global layers, and their partial results.
  kKeys,         // Earlier keys of global layers, through a buffer.
  kReplica,      // Earlier keys of global layers, into the replica.
  kRoundKeys,    // Of global layers, those of the round itself.
  kHalo,         // Window keys before a range.
  kWindowTail,   // Window keys for later steps.
  kFinalStates,  // Of a round, to all ranks' parts of the LM head.
  kLogits,
};
inline constexpr int kNumTransfers = 9;

// For people and JSON: "all_reduce" …
const char* TransferName(Transfer transfer);

// One step.  Computation in seconds, each of the slowest rank for it.
struct StepCost {
  struct Exchanged {
    int64_t bytes = 0;  // Received by the rank that receives most.
    int exchanges = 0;
  };

  double matmul = 0;
  double window_attention = 0;
  double global_attention = 0;
  double head = 0;  // The LM head.
  // All of it, of the rank that has most in all: what the step would take if
  // ranks waited for each other at its end alone.
  double busiest_rank = 0;
  std::array<Exchanged, kNumTransfers> exchanged;

  double compute() const {
    return matmul + window_attention + global_attention + head;
  }
  const Exchanged& of(Transfer transfer) const {
    return exchanged[static_cast<int>(transfer)];
  }
  Exchanged& of(Transfer transfer) {
    return exchanged[static_cast<int>(transfer)];
  }
};

// What is planned next of one prefill.
struct PrefillChoice {
  Layout layout = Layout::kHeadSplit;
  int num_tokens = 0;
  std::vector<int> range_ends;  // As in StepPlan.
  absl::Duration planned_time;
  bool over_limit = false;  // Even the smallest step takes longer.
};

class CostModel {
 public:
  // `slowest` has the lowest of each rate in the group.
  //
  // REQUIRES: rates are > 0, those of the link if there are several ranks; so
  // is all of `group`.
  CostModel(const ModelShape& shape, const RankRates& slowest,
            const GroupShape& group);

  int num_ranks() const { return num_ranks_; }
  const RankRates& rates() const { return rates_; }

  // Positions [context, context + num_tokens) of one sequence.
  struct Part {
    int context = 0;
    int num_tokens = 0;
  };

  StepCost HeadSplit(std::span<const Part> parts, int num_logit_rows) const;

  // A round from `start`; range_ends and replica_tokens as in StepPlan.  Logits
  // are of its last positions.
  StepCost TokenSplit(int start, std::span<const int> range_ends,
                      int replica_tokens, int num_logit_rows) const;

  double TransferSeconds(const StepCost::Exchanged& exchanged) const;
  absl::Duration Time(const StepCost& cost) const;

  // Seconds of a token under token split, what ranges are balanced by.
  TokenCost token_cost() const;

  // What is left of a prefill.
  struct Prefill {
    int context = 0;  // Positions computed.
    int tokens_left = 0;
    int replica_tokens = kNoReplica;  // As in StepPlan.
  };

  struct StepLimits {
    int max_step_tokens = 0;   // Under head split.
    int max_range_tokens = 0;  // Of a rank, a multiple of 64; 0: no rounds.
    absl::Duration time = absl::InfiniteDuration();
  };

  // The layout, and under token split the number of tokens, that do most work a
  // second; a token's work is what it costs on one rank.  Steps end at a page
  // border or with the prefill, and keep to `limits`; ranges are of equal cost
  // as far as max_range_tokens allows.  Where not even a page keeps to
  // limits.time, the page.
  PrefillChoice Choose(const Prefill& prefill, const StepLimits& limits) const;

  // The best round, whether or not a head-split step is better.
  //
  // REQUIRES: limits.max_range_tokens > 0.
  PrefillChoice BestRound(const Prefill& prefill,
                          const StepLimits& limits) const;

  // The round to `end` in ranges of equal cost, as far as max_range_tokens
  // allows.
  //
  // REQUIRES: num_ranks() ranges of max_range_tokens cover it.
  PrefillChoice RoundTo(const Prefill& prefill, int end,
                        const StepLimits& limits) const;

  // The most of the chunk's tokens, up to a page border or all of them, with
  // which a head-split step that also has `parts` takes `limit` at most; what
  // leads to the first border, if that takes longer.
  int LargestChunk(std::span<const Part> parts, Part chunk, int num_logit_rows,
                   absl::Duration limit) const;

 private:
  double MatmulSeconds(double flops, double weight_bytes) const;
  double AttentionSeconds(double flops, double key_bytes) const;
  double LayerWeights(int sharers) const;
  double WindowPairs(PositionRange queries) const;
  double WindowSeconds(PositionRange queries, int sharers) const;
  double GlobalSeconds(PositionRange queries, int sharers) const;
  double HeadSeconds(int num_logit_rows) const;

  GlobalShape global_shape() const;
  void AddGather(Transfer transfer, int first, int end, StepCost& cost) const;
  void AddQueries(int64_t num_tokens, StepCost& cost) const;
  void AddLogits(int num_logit_rows, StepCost& cost) const;
  void AddFinalStates(const RoundSplit& split, int num_logit_rows,
                      StepCost& cost) const;
  void AddRoundKeys(const RoundSplit& split, StepCost& cost) const;
  void AddWindowExchanges(const RoundSplit& split, StepCost& cost) const;

  PrefillChoice LargestChunkAlone(const Prefill& prefill,
                                  const StepLimits& limits) const;
  // Work a second.
  double Speed(const Prefill& prefill, const PrefillChoice& choice) const;

  ModelShape shape_;
  RankRates rates_;
  int num_ranks_;
  int activation_bytes_;
  int gather_pages_;
};

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_COST_MODEL_H_
