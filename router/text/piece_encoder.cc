#include "router/text/piece_encoder.h"

#include <optional>

#include "router/text/utf8.h"

namespace lapidary {

PieceEncoder::PieceEncoder(const TokenizerTables& tables, size_t text_bytes)
    : tables_(tables), cache_(text_bytes), merger_(tables.merges) {}

void PieceEncoder::Encode(absl::string_view text, std::vector<TokenId>& ids) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = tables_.splitter.PieceEnd(text, begin);
    EncodePiece(text.substr(begin, end - begin), ids);
    begin = end;
  }
}

void PieceEncoder::EncodePiece(absl::string_view piece,
                               std::vector<TokenId>& ids) {
  if (piece.size() > PieceCache::kMaxPieceBytes) {
    Merge(piece);
    ids.insert(ids.end(), symbols_.begin(), symbols_.end());
    return;
  }
  PieceCache::Slot& slot = cache_.SlotOf(piece);
  if (slot.Holds(piece)) {
    ids.insert(ids.end(), slot.ids, slot.ids + slot.num_ids);
    return;
  }
  Merge(piece);
  slot.Set(piece, symbols_);
  ids.insert(ids.end(), symbols_.begin(), symbols_.end());
}

// Leaves the ids of `piece` in symbols_.
void PieceEncoder::Merge(absl::string_view piece) {
  const std::vector<TokenId>& char_tokens = tables_.char_tokens;
  symbols_.clear();
  for (size_t i = 0; i < piece.size();) {
    const std::optional<Utf8Char> c = DecodeUtf8Char(piece, i);
    const int num_bytes = c.has_value() ? c->num_bytes : 1;
    if (c.has_value() && c->code_point < char_tokens.size() &&
        char_tokens[c->code_point] != TokenizerTables::kNoToken) {
      symbols_.push_back(char_tokens[c->code_point]);
    } else {
      for (const unsigned char byte : piece.substr(i, num_bytes)) {
        symbols_.push_back(tables_.byte_tokens[byte]);
      }
    }
    i += num_bytes;
  }
  merger_.Merge(symbols_);
}

}  // namespace lapidary
