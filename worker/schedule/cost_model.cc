#include "worker/schedule/cost_model.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "common/tokens.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr int kWeightBytes = 2;  // bf16

double Pairs(PositionRange queries) {
  // Σ (p + 1) over the queries.
  return 0.5 * queries.size() * (double{1} + queries.begin + queries.end);
}

// The part of window layers' KV heads that a rank holds.
double KvShare(const ModelShape::Layers& layers, int sharers) {
  if (layers.count == 0) return 0;
  const int held = ShareOfKvHeads(layers.kv_heads, 0, sharers).count;
  return static_cast<double>(held) / layers.kv_heads;
}

// The largest number from 1 to `most` that fits; 1 if none does.
//
// REQUIRES: what is smaller than one that fits fits as well, nearly.
int Largest(int most, absl::FunctionRef<bool(int)> fits) {
  if (most > 1 && fits(most)) return most;
  int low = 1;
  int high = most;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

int LongestRange(int start, std::span<const int> range_ends) {
  int longest = 0;
  int begin = start;
  for (const int end : range_ends) {
    longest = std::max(longest, end - begin);
    begin = end;
  }
  return longest;
}

// What the rank gets that receives most.
int64_t Most(int num_ranks, absl::FunctionRef<int64_t(int)> bytes_of_rank) {
  int64_t most = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    most = std::max(most, bytes_of_rank(rank));
  }
  return most;
}

// Where a step from `context` may end: page borders, and `end`.
int NumEnds(int context, int end) {
  return NumPages(end) - context / kPageTokens;
}
int NthEnd(int context, int end, int n) {
  return std::min(end, (context / kPageTokens + n) * kPageTokens);
}

}  // namespace

const char* TransferName(Transfer transfer) {
  switch (transfer) {
    case Transfer::kAllReduce:
      return "all_reduce";
    case Transfer::kQueries:
      return "queries";
    case Transfer::kKeys:
      return "keys";
    case Transfer::kReplica:
      return "replica";
    case Transfer::kRoundKeys:
      return "round_keys";
    case Transfer::kHalo:
      return "halo";
    case Transfer::kWindowTail:
      return "window_tail";
    case Transfer::kFinalStates:
      return "final_states";
    case Transfer::kLogits:
      return "logits";
  }
  return "";
}

CostModel::CostModel(const ModelShape& shape, const RankRates& slowest,
                     const GroupShape& group)
    : shape_(shape),
      rates_(slowest),
      num_ranks_(group.num_ranks),
      activation_bytes_(group.activation_bytes),
      gather_pages_(group.gather_pages) {
  CHECK_GT(num_ranks_, 0);
  CHECK_GT(activation_bytes_, 0);
  CHECK_GT(gather_pages_, 0);
  CHECK_GT(slowest.matmul_flops, 0);
  CHECK_GT(slowest.attention_flops, 0);
  CHECK_GT(slowest.read_bytes, 0);
  if (num_ranks_ > 1) CHECK_GT(slowest.link_bytes, 0);
}

// ------------------------------------------------------------ Computation

double CostModel::MatmulSeconds(double flops, double weight_bytes) const {
  return std::max(flops / rates_.matmul_flops,
                  weight_bytes / rates_.read_bytes);
}

double CostModel::AttentionSeconds(double flops, double key_bytes) const {
  return std::max(flops / rates_.attention_flops,
                  key_bytes / rates_.read_bytes);
}

// Of all layers, those that one rank computes with where `sharers` ranks share
// the heads.  k and v of global layers are never divided (rank_weights.h).
double CostModel::LayerWeights(int sharers) const {
  const double h = shape_.hidden_size;
  const auto attention = [&](const ModelShape::Layers& layers,
                             double kv_share) {
    const double q = h * shape_.num_heads * layers.head_dim;
    const double k = h * layers.kv_heads * layers.head_dim;
    return layers.count *
           (2 * q / sharers + (layers.has_v ? 2 : 1) * k * kv_share);
  };
  return attention(shape_.window_layers,
                   KvShare(shape_.window_layers, sharers)) +
         attention(shape_.global_layers, 1) +
         shape_.num_layers() * 3 * h * shape_.intermediate_size / sharers;
}

// Of a window layer: query p sees min(p + 1, W) keys.
double CostModel::WindowPairs(PositionRange queries) const {
  const int full = std::clamp(shape_.window, queries.begin, queries.end);
  return Pairs({queries.begin, full}) +
         static_cast<double>(queries.end - full) * shape_.window;
}

double CostModel::WindowSeconds(PositionRange queries, int sharers) const {
  const ModelShape::Layers& layers = shape_.window_layers;
  if (layers.count == 0 || queries.empty()) return 0;
  const double earlier = std::min(queries.begin, shape_.window - 1);
  return layers.count *
         AttentionSeconds(4.0 * shape_.num_heads * layers.head_dim *
                              WindowPairs(queries) / sharers,
                          earlier * layers.stored() * activation_bytes_ *
                              KvShare(layers, sharers));
}

double CostModel::GlobalSeconds(PositionRange queries, int sharers) const {
  const ModelShape::Layers& layers = shape_.global_layers;
  if (queries.empty()) return 0;
  return layers.count *
         AttentionSeconds(4.0 * shape_.num_heads * layers.head_dim *
                              Pairs(queries) / sharers,
                          static_cast<double>(queries.begin) * layers.stored() *
                              activation_bytes_ / sharers);
}

double CostModel::HeadSeconds(int num_logit_rows) const {
  if (num_logit_rows == 0) return 0;
  const double weights =
      static_cast<double>(shape_.hidden_size) * shape_.vocab_size / num_ranks_;
  return MatmulSeconds(2 * num_logit_rows * weights, kWeightBytes * weights);
}

TokenCost CostModel::token_cost() const {
  const ModelShape::Layers& window = shape_.window_layers;
  const ModelShape::Layers& global = shape_.global_layers;
  const double window_flops =
      4.0 * window.count * shape_.num_heads * window.head_dim * shape_.window;
  const double global_flops =
      4.0 * global.count * shape_.num_heads * global.head_dim;
  return {.fixed = 2 * LayerWeights(1) / rates_.matmul_flops +
                   window_flops / rates_.attention_flops,
          .per_position = global_flops / rates_.attention_flops};
}

// ------------------------------------------------------------------ Steps

StepCost CostModel::HeadSplit(std::span<const Part> parts,
                              int num_logit_rows) const {
  StepCost cost;
  int64_t num_tokens = 0;
  int64_t query_tokens = 0;  // Of sequences whose queries travel.
  for (const Part& part : parts) {
    const PositionRange queries = {part.context,
                                   part.context + part.num_tokens};
    num_tokens += part.num_tokens;
    cost.window_attention += WindowSeconds(queries, num_ranks_);
    cost.global_attention += GlobalSeconds(queries, num_ranks_);
    if (num_ranks_ == 1) continue;
    if (ChooseTravel(part.context, part.num_tokens, global_shape()) ==
        Travel::kQueries) {
      query_tokens += part.num_tokens;
    } else {
      AddGather(Transfer::kKeys, 0, part.context, cost);
    }
  }
  const double weights = LayerWeights(num_ranks_);
  cost.matmul =
      MatmulSeconds(2.0 * num_tokens * weights, kWeightBytes * weights);
  cost.head = HeadSeconds(num_logit_rows);
  cost.busiest_rank = cost.compute();
  AddLogits(num_logit_rows, cost);
  if (num_ranks_ == 1) return cost;
  // A reduction is two exchanges.
  const int reductions = 2 * shape_.num_layers();
  cost.of(Transfer::kAllReduce) = {
      .bytes = reductions * AllReduceBytes(num_tokens, shape_.hidden_size,
                                           activation_bytes_, num_ranks_),
      .exchanges = 2 * reductions};
  AddQueries(query_tokens, cost);
  return cost;
}

StepCost CostModel::TokenSplit(int start, std::span<const int> range_ends,
                               int replica_tokens, int num_logit_rows) const {
  const RoundSplit split(start, range_ends, shape_.window);
  CHECK_EQ(split.num_ranks(), num_ranks_);
  const double weights = LayerWeights(1);
  StepCost cost;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const PositionRange range = split.range(rank);
    if (range.empty()) continue;
    const double matmul =
        MatmulSeconds(2.0 * range.size() * weights, kWeightBytes * weights);
    const double window = WindowSeconds(range, 1);
    const double global = GlobalSeconds(range, 1);
    cost.matmul = std::max(cost.matmul, matmul);
    cost.window_attention = std::max(cost.window_attention, window);
    cost.global_attention = std::max(cost.global_attention, global);
    cost.busiest_rank = std::max(cost.busiest_rank, matmul + window + global);
  }
  cost.head = HeadSeconds(num_logit_rows);
  cost.busiest_rank += cost.head;
  AddLogits(num_logit_rows, cost);
  if (num_ranks_ == 1) return cost;
  AddRoundKeys(split, cost);
  AddWindowExchanges(split, cost);
  AddFinalStates(split, num_logit_rows, cost);
  // What the queries see of the positions before the round.
  if (replica_tokens == kNoReplica) {
    AddGather(Transfer::kKeys, 0, start, cost);
  } else {
    AddGather(Transfer::kReplica, replica_tokens, start, cost);
  }
  return cost;
}

// -------------------------------------------------------------- Exchanges

GlobalShape CostModel::global_shape() const {
  return {.num_heads = shape_.num_heads,
          .kv_heads = shape_.global_layers.kv_heads,
          .head_dim = shape_.global_layers.head_dim,
          .key_half = shape_.global_layers.key_half,
          .activation_bytes = activation_bytes_,
          .k_eq_v = !shape_.global_layers.has_v};
}

// The pages with the keys of positions [first, end) in global layers come to
// every rank.
void CostModel::AddGather(Transfer transfer, int first, int end,
                          StepCost& cost) const {
  const int layers = shape_.global_layers.count;
  if (end <= first || layers == 0) return;
  const int first_page = first / kPageTokens;
  const int end_page = NumPages(end);
  const int64_t bytes = Most(num_ranks_, [&](int rank) {
    return PagesBytes(first_page, end_page, rank, num_ranks_, global_shape());
  });
  const int segments = (end_page - first_page - 1) / gather_pages_ + 1;
  StepCost::Exchanged& exchanged = cost.of(transfer);
  exchanged.bytes += layers * bytes;
  exchanged.exchanges += layers * segments;
}

void CostModel::AddQueries(int64_t num_tokens, StepCost& cost) const {
  if (num_tokens == 0) return;
  const int layers = shape_.global_layers.count;
  cost.of(Transfer::kQueries) = {
      .bytes =
          layers * QueriesTravelBytes(num_tokens, global_shape(), num_ranks_),
      .exchanges = 2 * layers};
}

// The leader gets the other ranks' parts of the vocabulary.
void CostModel::AddLogits(int num_logit_rows, StepCost& cost) const {
  if (num_logit_rows == 0 || num_ranks_ == 1) return;
  cost.of(Transfer::kLogits) = {
      .bytes = LogitsBytes(num_logit_rows, shape_.vocab_size, num_ranks_),
      .exchanges = 1};
}

// Every rank gets the rows that it multiplies with its part of the vocabulary.
void CostModel::AddFinalStates(const RoundSplit& split, int num_logit_rows,
                               StepCost& cost) const {
  if (num_logit_rows == 0) return;
  cost.of(Transfer::kFinalStates) = {
      .bytes = Most(num_ranks_,
                    [&](int rank) {
                      return FinalStatesBytes(split, rank, num_logit_rows,
                                              shape_.hidden_size,
                                              activation_bytes_);
                    }),
      .exchanges = 1};
}

// Every rank gets the projections of the others' keys.
void CostModel::AddRoundKeys(const RoundSplit& split, StepCost& cost) const {
  const int layers = shape_.global_layers.count;
  const int64_t bytes = Most(num_ranks_, [&](int rank) {
    return RoundKeysBytes(split, rank, global_shape());
  });
  cost.of(Transfer::kRoundKeys) = {.bytes = layers * bytes,
                                   .exchanges = layers};
}

void CostModel::AddWindowExchanges(const RoundSplit& split,
                                   StepCost& cost) const {
  const int layers = shape_.window_layers.count;
  if (layers == 0) return;
  const WindowShape shape = {.kv_heads = shape_.window_layers.kv_heads,
                             .head_dim = shape_.window_layers.head_dim,
                             .activation_bytes = activation_bytes_};
  const int64_t halo =
      Most(num_ranks_, [&](int rank) { return HaloBytes(split, rank, shape); });
  const int64_t tail =
      Most(num_ranks_, [&](int rank) { return TailBytes(split, rank, shape); });
  cost.of(Transfer::kHalo) = {.bytes = layers * halo, .exchanges = layers};
  cost.of(Transfer::kWindowTail) = {.bytes = layers * tail,
                                    .exchanges = layers};
}

double CostModel::TransferSeconds(const StepCost::Exchanged& exchanged) const {
  if (exchanged.exchanges == 0) return 0;
  return static_cast<double>(exchanged.bytes) / rates_.link_bytes +
         exchanged.exchanges * absl::ToDoubleSeconds(rates_.link_latency);
}

absl::Duration CostModel::Time(const StepCost& cost) const {
  double seconds = cost.compute();
  for (const StepCost::Exchanged& exchanged : cost.exchanged) {
    seconds += TransferSeconds(exchanged);
  }
  // As plans carry it, and never less.
  return absl::Ceil(absl::Seconds(seconds), absl::Nanoseconds(1));
}

// ----------------------------------------------------------------- Choice

PrefillChoice CostModel::Choose(const Prefill& prefill,
                                const StepLimits& limits) const {
  PrefillChoice chunk = LargestChunkAlone(prefill, limits);
  if (num_ranks_ == 1 || limits.max_range_tokens == 0) return chunk;
  PrefillChoice round = BestRound(prefill, limits);
  return Speed(prefill, round) > Speed(prefill, chunk) ? round : chunk;
}

double CostModel::Speed(const Prefill& prefill,
                        const PrefillChoice& choice) const {
  const PositionRange range = {prefill.context,
                               prefill.context + choice.num_tokens};
  return token_cost().Of(range) / absl::ToDoubleSeconds(choice.planned_time);
}

PrefillChoice CostModel::LargestChunkAlone(const Prefill& prefill,
                                           const StepLimits& limits) const {
  Part part = {.context = prefill.context, .num_tokens = prefill.tokens_left};
  if (part.num_tokens > limits.max_step_tokens) {
    const int border =
        (part.context + limits.max_step_tokens) / kPageTokens * kPageTokens;
    part.num_tokens =
        border > part.context ? border - part.context : limits.max_step_tokens;
  }
  part.num_tokens = LargestChunk({}, part, 0, limits.time);
  const int num_logit_rows = part.num_tokens == prefill.tokens_left ? 1 : 0;
  PrefillChoice choice;
  choice.num_tokens = part.num_tokens;
  choice.planned_time = Time(HeadSplit({&part, 1}, num_logit_rows));
  choice.over_limit = choice.planned_time > limits.time;
  return choice;
}

int CostModel::LargestChunk(std::span<const Part> parts, Part chunk,
                            int num_logit_rows, absl::Duration limit) const {
  std::vector<Part> step(parts.begin(), parts.end());
  step.push_back(chunk);
  const int end = chunk.context + chunk.num_tokens;
  const int largest = Largest(NumEnds(chunk.context, end), [&](int n) {
    step.back().num_tokens = NthEnd(chunk.context, end, n) - chunk.context;
    return Time(HeadSplit(step, num_logit_rows + 1)) <= limit;
  });
  return NthEnd(chunk.context, end, largest) - chunk.context;
}

PrefillChoice CostModel::BestRound(const Prefill& prefill,
                                   const StepLimits& limits) const {
  CHECK_GT(limits.max_range_tokens, 0);
  const int start = prefill.context;
  const int end = start + prefill.tokens_left;
  const int64_t in_memory =
      int64_t{num_ranks_} * limits.max_range_tokens / kPageTokens;
  const auto most =
      static_cast<int>(std::min<int64_t>(NumEnds(start, end), in_memory));
  StepLimits no_memory_limit = limits;
  no_memory_limit.max_range_tokens = (most + 1) * kPageTokens;
  const int even = Largest(most, [&](int n) {
    const PrefillChoice round =
        RoundTo(prefill, NthEnd(start, end, n), no_memory_limit);
    return LongestRange(start, round.range_ends) <= limits.max_range_tokens &&
           !round.over_limit;
  });
  PrefillChoice best = RoundTo(prefill, NthEnd(start, end, even), limits);
  const auto consider = [&](int n) {
    PrefillChoice round = RoundTo(prefill, NthEnd(start, end, n), limits);
    if (round.over_limit) return;
    if (Speed(prefill, round) > Speed(prefill, best)) best = std::move(round);
  };
  // All that memory holds, in ranges of equal length rather than cost.
  if (most > even) consider(most);
  // A shorter round costs its exchanges more often, but lets ranks wait less:
  // the less positions differ, the more alike ranges are.
  for (int n = even / 2; n >= num_ranks_; n /= 2) consider(n);
  return best;
}

PrefillChoice CostModel::RoundTo(const Prefill& prefill, int end,
                                 const StepLimits& limits) const {
  const int start = prefill.context;
  PrefillChoice round;
  round.layout = Layout::kTokenSplit;
  round.num_tokens = end - start;
  round.range_ends = SplitRound({start, end}, num_ranks_, token_cost(),
                                limits.max_range_tokens);
  round.planned_time =
      Time(TokenSplit(start, round.range_ends, prefill.replica_tokens,
                      round.num_tokens == prefill.tokens_left ? 1 : 0));
  round.over_limit = round.planned_time > limits.time;
  return round;
}

}  // namespace lapidary
