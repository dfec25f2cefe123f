#include "router/text/piece_splitter.h"

#include <optional>

#include "router/text/utf8.h"

namespace lapidary {
namespace {

// One spelling for the two of a space: the one that is ASCII, and so is fast.
char32_t Canonical(char32_t c) { return c == kSpaceMark ? U' ' : c; }

}  // namespace

void PieceSplitter::AddMerge(char32_t left, char32_t right) {
  left = Canonical(left);
  right = Canonical(right);
  if (left < kAsciiSize && right < kAsciiSize) {
    ascii_merges_[left].set(right);
  } else {
    merges_.insert(uint64_t{left} << 32 | right);
  }
}

bool PieceSplitter::CanMerge(char32_t left, char32_t right) const {
  if (left < kAsciiSize && right < kAsciiSize) {
    return ascii_merges_[left][right];
  }
  return merges_.contains(uint64_t{left} << 32 | right);
}

size_t PieceSplitter::PieceEnd(absl::string_view text, size_t begin) const {
  const std::optional<Utf8Char> first = DecodeUtf8Char(text, begin);
  if (!first.has_value()) return begin + 1;
  char32_t left = Canonical(first->code_point);
  size_t end = begin + first->num_bytes;
  while (end < text.size()) {
    const auto byte = static_cast<unsigned char>(text[end]);
    if (byte < kAsciiSize && left < kAsciiSize) {
      if (!ascii_merges_[left][byte]) break;
      left = byte;
      ++end;
      continue;
    }
    const std::optional<Utf8Char> c = DecodeUtf8Char(text, end);
    if (!c.has_value()) break;
    const char32_t right = Canonical(c->code_point);
    if (!CanMerge(left, right)) break;
    left = right;
    end += c->num_bytes;
  }
  return end;
}

}  // namespace lapidary
