// Cuts a text where no merge can reach across.

#ifndef ROUTER_TEXT_PIECE_SPLITTER_H_
#define ROUTER_TEXT_PIECE_SPLITTER_H_

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// What "▁" and " " are both counted as.
inline constexpr char32_t kSpaceMark = 0x2581;  // "▁"

// The first merge to reach across the border between two characters joins a
// token that ends with the left one and a token that begins with the right one.
// So if no merge of the table has that form, the border stays.
//
// Thread-compatible.
class PieceSplitter {
 public:
  // Tells of a merge whose left token ends with `left` and whose right token
  // begins with `right`.
  void AddMerge(char32_t left, char32_t right);

  // Where the piece that begins at `begin` ends.  Bytes that are not UTF-8 are
  // pieces of their own.
  //
  // REQUIRES: begin < text.size().
  size_t PieceEnd(absl::string_view text, size_t begin) const;

 private:
  static constexpr int kAsciiSize = 128;

  bool CanMerge(char32_t left, char32_t right) const;

  std::array<std::bitset<kAsciiSize>, kAsciiSize> ascii_merges_;
  absl::flat_hash_set<uint64_t> merges_;  // left << 32 | right, not both ASCII.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_PIECE_SPLITTER_H_
