#include "router/text/utf8.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "router/text/unicode_tables.h"

namespace lapidary {
namespace {

constexpr char32_t kMaxCodePoint = 0x10FFFF;
constexpr char kReplacementCharacter[] = "\uFFFD";

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// As Python's str.isspace().
bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 ||
         c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

char32_t LowerCase(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
  const LowerCaseRun* run = std::lower_bound(
      std::begin(kLowerCaseRuns), std::end(kLowerCaseRuns), c,
      [](const LowerCaseRun& run, char32_t c) { return run.last < c; });
  if (run == std::end(kLowerCaseRuns) || c < run->first) return c;
  return (c - run->first) % run->stride == 0 ? c + run->delta : c;
}

}  // namespace

std::optional<Utf8Char> DecodeUtf8Char(absl::string_view text, size_t begin) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[begin + i]);
  };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return Utf8Char{lead, 1};
  const int num_bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - begin < num_bytes + 0u) {
    return std::nullopt;
  }
  char32_t c = lead & (0x7F >> num_bytes);
  for (int i = 1; i < num_bytes; ++i) {
    if (!IsContinuation(byte(i))) return std::nullopt;
    c = c << 6 | (byte(i) & 0x3F);
  }
  constexpr char32_t kFirst[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = c >= 0xD800 && c <= 0xDFFF;
  if (c < kFirst[num_bytes] || is_surrogate || c > kMaxCodePoint) {
    return std::nullopt;
  }
  return Utf8Char{c, num_bytes};
}

void AppendUtf8(char32_t code_point, std::string& out) {
  const auto tail = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | (code_point >> shift & 0x3F)));
  };
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xC0 | code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | code_point >> 12));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | code_point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

absl::Status ValidateUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const std::optional<Utf8Char> c = DecodeUtf8Char(text, i);
    if (!c.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "needs UTF-8, byte 0x",
          absl::Hex(static_cast<unsigned char>(text[i]), absl::kZeroPad2),
          " at offset ", i, " begins no character"));
    }
    i += c->num_bytes;
  }
  return absl::OkStatus();
}

std::string DecodeByteRun(absl::string_view bytes) {
  if (ValidateUtf8(bytes).ok()) return std::string(bytes);
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) text += kReplacementCharacter;
  return text;
}

absl::string_view TrimUnicode(absl::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    const std::optional<Utf8Char> c = DecodeUtf8Char(text, begin);
    if (!c.has_value() || !IsSpace(c->code_point)) break;
    begin += c->num_bytes;
  }
  size_t end = text.size();
  while (end > begin) {
    size_t last = end - 1;
    while (last > begin && IsContinuation(text[last])) --last;
    const std::optional<Utf8Char> c = DecodeUtf8Char(text, last);
    if (!c.has_value() || !IsSpace(c->code_point)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::string LowerUnicode(absl::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const std::optional<Utf8Char> c = DecodeUtf8Char(text, i);
    if (!c.has_value()) {
      lower.push_back(text[i++]);
      continue;
    }
    AppendUtf8(LowerCase(c->code_point), lower);
    i += c->num_bytes;
  }
  return lower;
}

}  // namespace lapidary
