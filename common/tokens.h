// The ids and sizes that every part of the system counts in.

#ifndef COMMON_TOKENS_H_
#define COMMON_TOKENS_H_

#include <cstdint>

namespace lapidary {

// Index of a token in the model's vocabulary.
using TokenId = int32_t;

// Index of a page in the pool of its family, on the rank that owns it.
using PageId = int32_t;

// A page-table entry for positions whose keys are not stored.
inline constexpr PageId kNoPage = -1;

// Tokens per page of key/value memory: the unit of caching, hashing, sharing
// and splitting.
inline constexpr int kPageTokens = 64;

// Pages that hold `num_tokens` tokens from position 0.
constexpr int NumPages(int num_tokens) {
  return (num_tokens + kPageTokens - 1) / kPageTokens;
}

}  // namespace lapidary

#endif  // COMMON_TOKENS_H_
