// Reads tokenizer.json, the file format of Hugging Face's tokenizers:
//
//   {"added_tokens": [{"id", "content", …}, …],
//    "normalizer": {"type": "Replace", …},
//    "model": {"type": "BPE", "byte_fallback": true,
//              "vocab": {TOKEN: ID, …}, "merges": [[LEFT, RIGHT], …]}, …}

#ifndef ROUTER_TEXT_TOKENIZER_JSON_H_
#define ROUTER_TEXT_TOKENIZER_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokens.h"
#include "router/text/string_list.h"

namespace lapidary {

struct TokenizerJson {
  struct AddedToken {
    std::string content;
    TokenId id;
  };

  StringList vocab;                // In the order of the file.
  std::vector<TokenId> vocab_ids;  // Of the same length.
  StringList merges;               // Left, right, left, right, … by rank.
  std::vector<AddedToken> added_tokens;
};

// Errors:
//   INVALID_ARGUMENT  not JSON; or something that would make Tokenizer give
//   other
//                     ids than the reference.  Says what was expected and
//                     found.
absl::StatusOr<TokenizerJson> ParseTokenizerJson(absl::string_view json);

}  // namespace lapidary

#endif  // ROUTER_TEXT_TOKENIZER_JSON_H_
