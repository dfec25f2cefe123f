// Text to token ids and back, as tokenizer.json says: byte-pair encoding with
// byte fallback.
//
//   text ──► control tokens, verbatim ──► between them: pieces ──► merges ──►
//   ids
//
//   "<bos>Hello world!"   <bos> | Hello | ␣world | !
//
// The reference merges over the whole text between two control tokens.  A piece
// ends where no merge of the table can reach across, so encoding the pieces one
// by one gives the same ids; equal pieces are encoded once.

#ifndef ROUTER_TEXT_TOKENIZER_H_
#define ROUTER_TEXT_TOKENIZER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokens.h"

namespace lapidary {

struct TokenizerTables;

// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;

  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

// Immutable and thread-safe.  Takes about 30 MB for 262,144 tokens.
class Tokenizer {
 public:
  // Reads the file `path`, a tokenizer.json.
  //
  // Errors:
  //   NOT_FOUND, ...    those of ReadFile().
  //   INVALID_ARGUMENT  as Parse(); the message names the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      const std::string& path);

  // Errors:
  //   INVALID_ARGUMENT  not JSON, or not a byte-pair encoding with byte
  //                     fallback whose normalizer turns spaces into "▁".
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(
      absl::string_view json);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The ids of `text`.  Adds no <bos>.  Control tokens are matched verbatim,
  // the longest first, except where the match would overlap a span of
  // `literal`: text that somebody else supplied, in which "<bos>" is five
  // characters.
  //
  // Takes time proportional to the text, times the logarithm of the longest
  // run without a piece border.
  //
  // A byte that is not UTF-8 becomes its byte token; callers refuse such texts
  // before, with ValidateUtf8().
  //
  // REQUIRES: `literal` is ascending, disjoint and inside `text`.
  std::vector<TokenId> Encode(absl::string_view text,
                              std::span<const TextSpan> literal = {}) const;

  // The text of `ids`, control tokens included.  A run of byte tokens that is
  // not UTF-8 becomes one U+FFFD a byte.
  //
  // REQUIRES: 0 <= id < vocab_size() for each of `ids`.
  std::string Decode(std::span<const TokenId> ids) const;

  // The bytes that `id` stands for: "▁" as a space, a byte token as its byte, a
  // control token as its name.  Valid as long as the tokenizer.
  //
  // REQUIRES: 0 <= id < vocab_size().
  absl::string_view TokenBytes(TokenId id) const;

  // Whether `id` is a byte token, <0x00> to <0xFF>.
  bool IsByte(TokenId id) const;

  // Whether `id` is a control token, one of tokenizer.json's added tokens.
  bool IsControl(TokenId id) const;

  // The control token that is spelled `content`, if there is one.
  std::optional<TokenId> ControlToken(absl::string_view content) const;

  // Ids are 0 to vocab_size() - 1.
  int vocab_size() const;

  // A text of n bytes has at least n / max_token_bytes() tokens.
  int max_token_bytes() const;

 private:
  explicit Tokenizer(std::unique_ptr<const TokenizerTables> tables);

  const std::unique_ptr<const TokenizerTables> tables_;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_TOKENIZER_H_
