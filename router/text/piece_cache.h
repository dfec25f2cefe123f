// The ids of short pieces that were met before.

#ifndef ROUTER_TEXT_PIECE_CACHE_H_
#define ROUTER_TEXT_PIECE_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/tokens.h"

namespace lapidary {

// A direct-mapped table: a new piece replaces the one in its slot.
// Thread-compatible.
class PieceCache {
 public:
  static constexpr size_t kMaxPieceBytes = 30;
  static constexpr size_t kMaxIds = 8;

  // Sized for a text of `text_bytes`: 4 KB to 512 KB.
  explicit PieceCache(size_t text_bytes);

  // One cache line.
  struct alignas(64) Slot {
    TokenId ids[kMaxIds];
    char piece[kMaxPieceBytes];
    uint8_t num_bytes = 0;  // 0 while the slot is empty.
    uint8_t num_ids;

    bool Holds(absl::string_view text) const;
    void Set(absl::string_view text, std::span<const TokenId> ids);
  };

  // The slot of `piece`, which may hold another piece.
  Slot& SlotOf(absl::string_view piece);

 private:
  std::vector<Slot> slots_;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_PIECE_CACHE_H_
