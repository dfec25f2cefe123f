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
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> suppressed;
  uint64_t seed = 0;
  // Likeliest alternatives to report; nullopt: no log-probabilities at all.
  std::optional<int> logprobs;
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

// Draws tokens.  Keeps scratch memory of the vocabulary's size, so that a draw
// allocates nothing.  Thread-compatible.
class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // `logits` [vocab] are the model's own, after the softcap; they are
  // overwritten.  `position` is that of the token to be drawn.
  SampledToken Sample(std::span<float> logits, const SamplingOptions& options,
                      const TokenHistory& history, int position);

 private:
  std::vector<std::pair<float, TokenId>> candidates_;
};

// Uniform in [0, 1): the random number of the draw at `position`.
double UniformAt(uint64_t seed, int position);

}  // namespace lapidary

#endif  // WORKER_MODEL_SAMPLER_H_
