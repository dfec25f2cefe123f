// From logits to the next token.
//
// Pure: the random number of a draw is a function of (seed, position).

#ifndef WORKER_MODEL_SAMPLER_H_
#define WORKER_MODEL_SAMPLER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/tokens.h"

namespace lapidary {

// proto/lapidary/v1/sampling.proto says what each field does, in which order
// they act, and their ranges.
struct SamplingOptions {
  float temperature = 1.0f;
  int top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<TokenId, float>> logit_bias = {};
  std::vector<TokenId> suppressed = {};
  uint64_t seed = 0;
  // Likeliest alternatives to report; nullopt: no log-probabilities at all.
  std::optional<int> logprobs = std::nullopt;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0;              // If asked for.
  std::vector<TokenLogprob> top;  // If asked for; likeliest first.
};

// What a sequence has said so far, for the penalties.
class TokenHistory {
 public:
  // `prompt_tokens` count for the repetition penalty alone.
  explicit TokenHistory(std::span<const TokenId> prompt_tokens);

  void Add(TokenId output_token);

  struct Count {
    bool in_prompt = false;
    int in_output = 0;
  };
  const absl::flat_hash_map<TokenId, Count>& counts() const { return counts_; }

 private:
  absl::flat_hash_map<TokenId, Count> counts_;
};

// A token's weight is exp((logit - largest) / temperature): 1 for the
// likeliest.
struct Softmax {
  float largest = 0;
  float inverse_temperature = 1;
};

// Draws tokens.  Keeps scratch memory of the vocabulary's size, so that a draw
// allocates nothing.  Thread-compatible.
//
// A NaN counts as -inf.  Where the largest logit is infinite there is no
// distribution, the draw is the greedy one, and log-probabilities are NaN;
// where all are -inf the draw is id 0.
class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // `logits` [vocab] are the model's own, after the softcap; they are
  // overwritten.  `position` is that of the token to be drawn.
  //
  // Ids in `options` that the vocabulary lacks have no effect.
  SampledToken Sample(std::span<float> logits, const SamplingOptions& options,
                      const TokenHistory& history, int position);

 private:
  // A logit and its token; in the order of Likelier() where sorted.
  using Candidate = std::pair<float, TokenId>;

  // Likeliest alternatives and the normaliser, before anything is adjusted.
  void ReportTop(std::span<const float> logits, int count,
                 std::vector<TokenLogprob>& top);
  TokenId Draw(std::span<const float> logits, const SamplingOptions& options,
               double uniform);
  // Fill candidates_: with the `k` likeliest, sorted; with the likeliest that
  // reach the probability `top_p`; with all of `min_p` or a little less.
  void SelectTop(std::span<const float> logits, int k);
  void SelectMass(std::span<const float> logits, double top_p,
                  const Softmax& softmax);
  void SelectLikelierThan(std::span<const float> logits, float min_p,
                          const Softmax& softmax);
  TokenId DrawFromCandidates(const Softmax& softmax, double uniform) const;
  TokenId DrawFromAll(std::span<const float> logits, const Softmax& softmax,
                      double uniform);
  // Sum of all weights; leaves the sums of blocks of tokens in block_sums_.
  double SumWeights(std::span<const float> logits, const Softmax& softmax);

  const int vocab_size_;
  std::vector<Candidate> candidates_;
  std::vector<double> block_sums_;
  std::vector<float>
      original_;  // The model's own logits, for log-probabilities.
  double log_normalizer_ = 0;
};

// Uniform in [0, 1): the random number of the draw at `position`.
double UniformAt(uint64_t seed, int position);

}  // namespace lapidary

#endif  // WORKER_MODEL_SAMPLER_H_
