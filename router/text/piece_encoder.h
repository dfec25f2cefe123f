// Text without control tokens to ids, piece by piece.

#ifndef ROUTER_TEXT_PIECE_ENCODER_H_
#define ROUTER_TEXT_PIECE_ENCODER_H_

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/tokens.h"
#include "router/text/bpe_merger.h"
#include "router/text/piece_cache.h"
#include "router/text/tokenizer_tables.h"

namespace lapidary {

// Thread-compatible.  Must not outlive the tables.
class PieceEncoder {
 public:
  // `text_bytes` is about how much text will come.
  PieceEncoder(const TokenizerTables& tables, size_t text_bytes);

  // Appends the ids of `text` to `ids`.
  void Encode(absl::string_view text, std::vector<TokenId>& ids);

 private:
  void EncodePiece(absl::string_view piece, std::vector<TokenId>& ids);
  void Merge(absl::string_view piece);

  const TokenizerTables& tables_;
  PieceCache cache_;
  BpeMerger merger_;
  std::vector<TokenId> symbols_;  // Of the piece at hand.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_PIECE_ENCODER_H_
