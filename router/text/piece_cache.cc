#include "router/text/piece_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "xxhash.h"

namespace lapidary {
namespace {

constexpr size_t kMinSlots = 64;
constexpr size_t kMaxSlots = 8192;
constexpr size_t kTextBytesPerSlot = 16;

}  // namespace

PieceCache::PieceCache(size_t text_bytes)
    : slots_(std::bit_ceil(
          std::clamp(text_bytes / kTextBytesPerSlot, kMinSlots, kMaxSlots))) {}

bool PieceCache::Slot::Holds(absl::string_view text) const {
  return num_bytes == text.size() &&
         std::memcmp(piece, text.data(), text.size()) == 0;
}

void PieceCache::Slot::Set(absl::string_view text,
                           std::span<const TokenId> new_ids) {
  if (text.size() > kMaxPieceBytes || new_ids.size() > kMaxIds) return;
  std::copy(text.begin(), text.end(), piece);
  std::copy(new_ids.begin(), new_ids.end(), ids);
  num_bytes = static_cast<uint8_t>(text.size());
  num_ids = static_cast<uint8_t>(new_ids.size());
}

PieceCache::Slot& PieceCache::SlotOf(absl::string_view piece) {
  return slots_[XXH3_64bits(piece.data(), piece.size()) & (slots_.size() - 1)];
}

}  // namespace lapidary
