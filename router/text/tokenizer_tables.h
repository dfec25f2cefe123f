// What a tokenizer looks up, built once from tokenizer.json.

#ifndef ROUTER_TEXT_TOKENIZER_TABLES_H_
#define ROUTER_TEXT_TOKENIZER_TABLES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "router/text/control_matcher.h"
#include "router/text/merge_table.h"
#include "router/text/piece_splitter.h"
#include "router/text/string_list.h"
#include "router/text/tokenizer_json.h"

namespace lapidary {

enum class TokenKind : uint8_t { kText, kByte, kControl };

struct TokenizerTables {
  static constexpr TokenId kNoToken = -1;
  static constexpr int kNumBytes = 256;

  explicit TokenizerTables(size_t num_merges) : merges(num_merges) {}

  StringList bytes;              // By id: what the token stands for.
  int max_token_bytes = 0;       // Of the text that one token may stand for.
  std::vector<TokenKind> kinds;  // By id.

  // By code point: the token of that character or kNoToken.  Characters beyond
  // the end have none either.
  std::vector<TokenId> char_tokens;
  std::array<TokenId, kNumBytes> byte_tokens;

  MergeTable merges;
  PieceSplitter splitter;
  ControlMatcher controls;
};

// Errors:
//   INVALID_ARGUMENT  ids have gaps or two tokens, byte tokens are missing, or
//   a
//                     merge is of tokens that do not exist.
absl::StatusOr<std::unique_ptr<const TokenizerTables>> BuildTokenizerTables(
    const TokenizerJson& json);

}  // namespace lapidary

#endif  // ROUTER_TEXT_TOKENIZER_TABLES_H_
