// Token ids to text, one by one.

#ifndef ROUTER_TEXT_DETOKENIZER_H_
#define ROUTER_TEXT_DETOKENIZER_H_

#include <string>

#include "common/tokens.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// What Push() and Flush() return, joined, is Tokenizer::Decode() of all tokens,
// and each return value is UTF-8 by itself.  For that a run of byte tokens is
// held back until it ends, because one bad byte spoils the whole run in the
// reference decoder; real text has such runs only for characters that are not
// in the vocabulary.
//
// Thread-compatible.  Must not outlive the tokenizer.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The text that `id` completes; may be empty.
  //
  // REQUIRES: 0 <= id < tokenizer.vocab_size().
  std::string Push(TokenId id);

  // The text of what was held back.  Begins anew.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  std::string held_bytes_;  // The run of byte tokens so far.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_DETOKENIZER_H_
