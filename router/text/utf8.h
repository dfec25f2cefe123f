// UTF-8: validation, and the few character facts that text processing needs.

#ifndef ROUTER_TEXT_UTF8_H_
#define ROUTER_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// U+FFFD, what stands for a byte that is no character.
inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Char {
  char32_t code_point;
  int num_bytes;  // 1 to 4.
};

// The well-formed character at `text[begin]`: shortest form, no surrogate, at
// most U+10FFFF; nullopt if there is none.
//
// REQUIRES: begin < text.size().
std::optional<Utf8Char> DecodeUtf8Char(absl::string_view text, size_t begin);

// Appends `code_point`, at most U+10FFFF, to `out`.
void AppendUtf8(char32_t code_point, std::string& out);

// Errors:
//   INVALID_ARGUMENT  `text` is not UTF-8; the message gives the byte offset.
absl::Status ValidateUtf8(absl::string_view text);

// `text` without white space, as Unicode defines it, at both ends.
//
// REQUIRES: `text` is UTF-8.
absl::string_view TrimUnicode(absl::string_view text);

// `text` in lower case: each character's simple mapping, in the scripts that
// have one (Latin, Greek, Cyrillic, Armenian, Georgian, full width, …).
//
// REQUIRES: `text` is UTF-8.
std::string LowerUnicode(absl::string_view text);

// The same in upper case; "ß" becomes "SS".
//
// REQUIRES: `text` is UTF-8.
std::string UpperUnicode(absl::string_view text);

}  // namespace lapidary

#endif  // ROUTER_TEXT_UTF8_H_
