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

// The text of `bytes`, a run of byte tokens, as the reference decodes it: if
// not all of it is UTF-8, one U+FFFD a byte.
std::string DecodeByteRun(absl::string_view bytes);

// `text` without white space at both ends: the characters that Python's strip()
// takes away, Unicode's white space and the four ASCII separators.
//
// REQUIRES: `text` is UTF-8.
absl::string_view TrimUnicode(absl::string_view text);

// `text` in lower case, by Unicode's simple mapping of each character.
//
// REQUIRES: `text` is UTF-8.
std::string LowerUnicode(absl::string_view text);

}  // namespace lapidary

#endif  // ROUTER_TEXT_UTF8_H_
