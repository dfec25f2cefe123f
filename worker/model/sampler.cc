#include "worker/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();
constexpr int kBlockTokens = 1024;
constexpr int kPeakTokens = 256;

using Candidate = std::pair<float, TokenId>;

// The larger logit first; the lower id where they are equal.
bool Likelier(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// Not of a NaN.
TokenId Greedy(std::span<const float> logits) {
  TokenId best = 0;
  float largest = kImpossible;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > largest) {
      largest = logits[i];
      best = static_cast<TokenId>(i);
    }
  }
  return best;
}

// The finaliser of splitmix64.
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

void AddBias(std::span<float> logits, const SamplingOptions& options) {
  for (const auto& [token, bias] : options.logit_bias) {
    if (token >= 0 && token < static_cast<TokenId>(logits.size())) {
      logits[token] += bias;
    }
  }
}

void Penalize(std::span<float> logits, const SamplingOptions& options,
              const TokenHistory& history) {
  if (options.repetition_penalty == 1.0f && options.presence_penalty == 0.0f &&
      options.frequency_penalty == 0.0f) {
    return;
  }
  for (const auto& [token, count] : history.counts()) {
    float& logit = logits[token];
    logit = logit > 0 ? logit / options.repetition_penalty
                      : logit * options.repetition_penalty;
    if (count.in_output == 0) continue;
    logit -= options.presence_penalty;
    logit -= options.frequency_penalty * static_cast<float>(count.in_output);
  }
}

void Suppress(std::span<float> logits, const SamplingOptions& options) {
  for (const TokenId token : options.suppressed) {
    if (token >= 0 && token < static_cast<TokenId>(logits.size())) {
      logits[token] = kImpossible;
    }
  }
}

// 0 for a NaN.  In floats: a whole row of exponentials is what a draw costs.
float Weight(float logit, const Softmax& softmax) {
  const float weight =
      std::exp((logit - softmax.largest) * softmax.inverse_temperature);
  return weight > 0 ? weight : 0;
}

double SumOf(std::span<const Candidate> candidates, const Softmax& softmax) {
  double sum = 0;
  for (const auto& [logit, token] : candidates) sum += Weight(logit, softmax);
  return sum;
}

// Drops the candidates, which are sorted, behind the first ones whose weights
// reach `mass`.  Returns whether they do; if not, drops none.
bool KeepMass(double mass, const Softmax& softmax,
              std::vector<Candidate>& candidates) {
  double sum = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    sum += Weight(candidates[i].first, softmax);
    if (sum >= mass) {
      candidates.resize(i + 1);
      return true;
    }
  }
  return false;
}

// As KeepMass() for candidates that are not sorted: halves the range in which
// the border lies until it is found.
void PartitionMass(double mass, const Softmax& softmax,
                   std::vector<Candidate>& candidates) {
  auto begin = candidates.begin();
  auto end = candidates.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, Likelier);
    const double upper = SumOf({begin, middle}, softmax);
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  candidates.erase(end, candidates.end());
}

}  // namespace

TokenHistory::TokenHistory(std::span<const TokenId> prompt_tokens) {
  for (const TokenId token : prompt_tokens) counts_[token].in_prompt = true;
}

void TokenHistory::Add(TokenId output_token) {
  ++counts_[output_token].in_output;
}

double UniformAt(uint64_t seed, int position) {
  // The seed is mixed first: near seeds and near positions must not meet.
  const uint64_t z = Mix(Mix(seed) + (static_cast<uint64_t>(position) + 1) *
                                         0x9E3779B97F4A7C15u);
  return static_cast<double>(z >> 11) * 0x1p-53;
}

Sampler::Sampler(int vocab_size) : vocab_size_(vocab_size) {
  CHECK_GT(vocab_size, 0);
  candidates_.reserve(vocab_size);
  block_sums_.reserve(vocab_size / kBlockTokens + 1);
}

SampledToken Sampler::Sample(std::span<float> logits,
                             const SamplingOptions& options,
                             const TokenHistory& history, int position) {
  CHECK_EQ(static_cast<int>(logits.size()), vocab_size_);
  SampledToken sampled;
  if (options.logprobs.has_value()) {
    ReportTop(logits, *options.logprobs, sampled.top);
    original_.assign(logits.begin(), logits.end());
  }
  AddBias(logits, options);
  Penalize(logits, options, history);
  Suppress(logits, options);
  sampled.token = Draw(logits, options, UniformAt(options.seed, position));
  if (options.logprobs.has_value()) {
    sampled.logprob =
        static_cast<float>(original_[sampled.token] - log_normalizer_);
  }
  return sampled;
}

void Sampler::ReportTop(std::span<const float> logits, int count,
                        std::vector<TokenLogprob>& top) {
  const float largest = logits[Greedy(logits)];
  log_normalizer_ = largest + std::log(SumWeights(logits, {largest, 1.0f}));
  SelectTop(logits, count);
  for (const auto& [logit, token] : candidates_) {
    top.push_back({token, static_cast<float>(logit - log_normalizer_)});
  }
}

TokenId Sampler::Draw(std::span<const float> logits,
                      const SamplingOptions& options, double uniform) {
  const TokenId greedy = Greedy(logits);
  const float largest = logits[greedy];
  if (options.temperature == 0 || !std::isfinite(largest)) return greedy;

  const Softmax softmax{
      .largest = largest,
      .inverse_temperature = std::min(1.0f / options.temperature,
                                      std::numeric_limits<float>::max())};
  if (options.top_k > 0 && options.top_k < vocab_size_) {
    SelectTop(logits, options.top_k);
    if (options.top_p < 1) {
      KeepMass(options.top_p * SumOf(candidates_, softmax), softmax,
               candidates_);
    }
  } else if (options.top_p < 1) {
    SelectMass(logits, options.top_p, softmax);
  } else if (options.min_p > 0) {
    SelectLikelierThan(logits, options.min_p, softmax);
  } else {
    return DrawFromAll(logits, softmax, uniform);
  }
  if (options.min_p > 0) {
    std::erase_if(candidates_, [&](const Candidate& candidate) {
      return Weight(candidate.first, softmax) < options.min_p;
    });
  }
  return DrawFromCandidates(softmax, uniform);
}

// Keeps up to twice as many as asked for, and throws the lesser half away
// whenever they get that many.
void Sampler::SelectTop(std::span<const float> logits, int k) {
  candidates_.clear();
  if (k == 0) return;
  const size_t limit = std::max(2 * k, 256);
  float smallest = kImpossible;  // Nothing from here down is among the k.
  for (int i = 0; i < vocab_size_; ++i) {
    if (!(logits[i] > smallest)) continue;
    candidates_.emplace_back(logits[i], i);
    if (candidates_.size() < limit) continue;
    std::nth_element(candidates_.begin(), candidates_.begin() + k - 1,
                     candidates_.end(), Likelier);
    candidates_.resize(k);
    smallest = candidates_.back().first;
  }
  std::sort(candidates_.begin(), candidates_.end(), Likelier);
  if (static_cast<int>(candidates_.size()) > k) candidates_.resize(k);
}

// Tries a few candidates first, which is enough for peaked distributions.
void Sampler::SelectMass(std::span<const float> logits, double top_p,
                         const Softmax& softmax) {
  const double mass = top_p * SumWeights(logits, softmax);
  SelectTop(logits, std::min(kPeakTokens, vocab_size_));
  if (KeepMass(mass, softmax, candidates_)) return;

  candidates_.clear();
  for (int i = 0; i < vocab_size_; ++i) {
    if (logits[i] > kImpossible) candidates_.emplace_back(logits[i], i);
  }
  PartitionMass(mass, softmax, candidates_);
}

void Sampler::SelectLikelierThan(std::span<const float> logits, float min_p,
                                 const Softmax& softmax) {
  // Without an exponential for each; leaves a little more than needed.
  const float smallest =
      softmax.largest + 1.001f * std::log(min_p) / softmax.inverse_temperature -
      1e-3f;
  candidates_.clear();
  for (int i = 0; i < vocab_size_; ++i) {
    if (logits[i] >= smallest) candidates_.emplace_back(logits[i], i);
  }
}

TokenId Sampler::DrawFromCandidates(const Softmax& softmax,
                                    double uniform) const {
  double left = uniform * SumOf(candidates_, softmax);
  for (const auto& [logit, token] : candidates_) {
    left -= Weight(logit, softmax);
    if (left < 0) return token;
  }
  return candidates_.back().second;  // Rounding used `left` up.
}

// In the order of ids: finds the block first, then the token in it.
TokenId Sampler::DrawFromAll(std::span<const float> logits,
                             const Softmax& softmax, double uniform) {
  double left = uniform * SumWeights(logits, softmax);
  size_t block = 0;
  while (block + 1 < block_sums_.size() && left >= block_sums_[block]) {
    left -= block_sums_[block++];
  }
  const int first = static_cast<int>(block) * kBlockTokens;
  const int end = std::min(first + kBlockTokens, vocab_size_);
  TokenId last = Greedy(logits);  // If rounding used `left` up at once.
  for (int i = first; i < end; ++i) {
    const double weight = Weight(logits[i], softmax);
    if (weight == 0) continue;
    last = i;
    left -= weight;
    if (left < 0) break;
  }
  return last;
}

double Sampler::SumWeights(std::span<const float> logits,
                           const Softmax& softmax) {
  block_sums_.clear();
  double sum = 0;
  for (int first = 0; first < vocab_size_; first += kBlockTokens) {
    const int end = std::min(first + kBlockTokens, vocab_size_);
    double block = 0;
    for (int i = first; i < end; ++i) block += Weight(logits[i], softmax);
    block_sums_.push_back(block);
    sum += block;
  }
  return sum;
}

}  // namespace lapidary
